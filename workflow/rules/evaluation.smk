rule generate:
    input:
        generate_inputs,
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
        gpu=generate_gpu,
        mem_mb=growing(4000),
        runtime=lasting(1440),
    params:
        options=generate_options,
        settings=generate_settings,
        gpu_code=code_of_gpus(
            "generate", f"{RESULTS}/{{model}}/{{variant}}/samples/{{shard}}.npy", generate_modules
        ),
    shell:
        "python3 -m edadm generate {params.options:q} --shard {wildcards.shard:q} --output {output:q} --threads {threads:q} 2>&1 | tee {log:q}"


rule write_prompts:
    output:
        f"{RESULTS}/{{model}}/prompts.json",
    log:
        "logs/write-prompts/{model}.log",
    benchmark:
        f"{RESULTS}/times/write-prompts/{{model}}.tsv"
    conda:
        "../../envs/edadm.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=growing(2000),
        runtime=lasting(30),
    params:
        model=model_with("conditioning"),
        settings=model_settings("conditioning"),
        prompts=prompts_content,
        evaluation=evaluation_settings("images"),
        code=stage_fingerprint("generate.write_prompts"),
    shell:
        "python3 -m edadm write-prompts --model {params.model:q} --evaluation {params.evaluation:q} --output {output:q} 2>&1 | tee {log:q}"


rule reference_statistics:
    input:
        lambda wildcards: str(SCORING[wildcards.evaluation].reference),
    output:
        f"{RESULTS}/references/{{evaluation}}.h5",
    log:
        "logs/reference-statistics/{evaluation}.log",
    benchmark:
        f"{RESULTS}/times/reference-statistics/{{evaluation}}.tsv"
    conda:
        "../../envs/edadm.yaml"
    threads: 1
    resources:
        gpu=a_gpu,
        mem_mb=growing(8000),
        runtime=lasting(1440),
    params:
        device=device_of,
        settings=reference_settings,
        options=reference_options,
        name=lambda wildcards, input: Path(input[0]).name,
        label=label_of("reference-statistics", "evaluation"),
        code=stage_fingerprint("evaluate.reference_statistics"),
    shell:
        "python3 -m edadm reference-statistics --images {input:q} --name {params.name:q} {params.options:q}"
        " --output {output:q} --device {params.device:q} --threads {threads:q} --label {params.label:q} 2>&1 | tee {log:q}"


SCORED_WITH = (
    "scores",
    "extractor",
    "extractor_weights",
    "reference",
    "fallback_reference",
    "resolution",
    "crop",
    "scored_at_once",
    "prompts",
    "clip_model",
    "clip_weights",
    "vgg_weights",
    "lpips_weights",
    "dists_weights",
)


rule extract_features:
    input:
        samples=of_part(variant_samples),
        references=of_part(reference_samples),
        simulated=of_part(simulated_samples),
        prompts=scored_prompts,
    output:
        f"{RESULTS}/{{model}}/{{variant}}/features/{{share}}_of_{{jobs}}.safetensors",
    log:
        "logs/extract-features/{model}/{variant}/{share}_of_{jobs}.log",
    benchmark:
        f"{RESULTS}/times/extract-features/{{model}}/{{variant}}/{{share}}_of_{{jobs}}.tsv"
    conda:
        "../../envs/edadm.yaml"
    threads: 1
    resources:
        gpu=a_gpu,
        mem_mb=growing(evaluate_memory),
        runtime=lasting(240),
    params:
        device=device_of,
        evaluation=evaluation_with("images", "batch_size", *SCORED_WITH),
        settings=extraction_settings,
        options=extract_options,
        label=label_of("extract-features", "model", "variant", "share"),
        code=stage_fingerprint("evaluate.extract_features"),
    shell:
        "python3 -m edadm extract-features {params.options:q} --evaluation {params.evaluation:q} --job {wildcards.share:q} --jobs {wildcards.jobs:q}"
        " --output {output:q} --device {params.device:q} --threads {threads:q} --label {params.label:q} 2>&1 | tee {log:q}"


rule evaluate:
    input:
        samples=variant_samples,
        references=reference_samples,
        simulated=simulated_samples,
        features=variant_features,
        statistics=reference_statistics_of,
        prompts=scored_prompts,
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
        gpu=evaluate_gpu,
        mem_mb=growing(evaluate_memory),
        runtime=lasting(240),
    params:
        device=device_of,
        evaluation=evaluation_with(*SCORED_WITH),
        settings=evaluation_settings("scores", "clip_model", "scored_at_once"),
        scoring=scoring_content,
        options=evaluate_options,
        label=label_of("evaluate", "model", "variant"),
        code=stage_fingerprint("evaluate"),
    shell:
        "python3 -m edadm evaluate {params.options:q} --evaluation {params.evaluation:q}"
        " --output {output:q} --device {params.device:q} --threads {threads:q} --label {params.label:q} 2>&1 | tee {log:q}"
