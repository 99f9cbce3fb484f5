rule generate:
    input:
        weights=variant_weights,
        autoencoder=model_part("autoencoder"),
        condition=model_part("condition"),
        prompts=model_prompts,
    output:
        f"{RESULTS}/{{model}}/{{variant}}/samples/{{shard}}.npy",
    log:
        "logs/generate/{model}/{variant}/{shard}.log",
    benchmark:
        f"{RESULTS}/times/generate/{{model}}/{{variant}}/{{shard}}.tsv"
    conda:
        "../../envs/edadm.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=4000,
        runtime=1440,
    params:
        model=model_with("architecture", "autoencoder", "conditioning", "schedule", "sampler", "pixels"),
        parts=part_options("autoencoder", "condition"),
        evaluation=evaluation_with("images", "shards", "batch_size", "seed", "precision"),
        code=stage_fingerprint("generate"),
    shell:
        "python3 -m edadm generate --model {params.model:q} --evaluation {params.evaluation:q} --weights {input.weights:q} {params.parts:q}"
        " --shard {wildcards.shard} --output {output:q} --threads {threads}"
        " --label 'generate {wildcards.model} {wildcards.variant} shard {wildcards.shard}' 2>&1 | tee {log:q}"


rule evaluate:
    input:
        samples=variant_samples,
        references=reference_samples,
    output:
        f"{RESULTS}/{{model}}/{{variant}}/metrics.json",
    log:
        "logs/evaluate/{model}/{variant}.log",
    benchmark:
        f"{RESULTS}/times/evaluate/{{model}}/{{variant}}.tsv"
    conda:
        "../../envs/edadm.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=4000,
        runtime=240,
    params:
        evaluation=evaluation_with("extractor", "reference"),
        references=lambda wildcards, input: [f"--reference={file}" for file in input.references],
        code=stage_fingerprint("evaluate"),
    shell:
        "python3 -m edadm evaluate {input.samples:q} {params.references:q} --evaluation {params.evaluation:q}"
        " --output {output:q} --threads {threads} 2>&1 | tee {log:q}"
