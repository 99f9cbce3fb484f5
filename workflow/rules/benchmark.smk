rule benchmark:
    input:
        weights=model_weights,
    output:
        f"{RESULTS}/{{model}}/speed.json",
    params:
        model=lambda wildcards: as_json(CONFIG.models[wildcards.model]),
        weights=named_weights,
        code=stage_fingerprint("benchmark"),
    log:
        "logs/benchmark/{model}.log",
    benchmark:
        f"{RESULTS}/times/benchmark/{{model}}.tsv"
    threads: 1
    resources:
        gpu=0,
        mem_mb=4000,
        runtime=60,
    conda:
        "../../envs/edadm.yaml"
    shell:
        "{PYTHON} -m edadm benchmark {params.weights:q} --model {params.model:q} --output {output:q}"
        " --threads {threads} 2>&1 | tee {log:q}"
