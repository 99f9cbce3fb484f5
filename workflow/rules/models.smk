rule convert_checkpoint:
    input:
        lambda wildcards: str(CHECKPOINTS[wildcards.model]),
    output:
        f"{RESULTS}/{{model}}/fp32/unet.safetensors",
    params:
        model=lambda wildcards: as_json(CONFIG.models[wildcards.model]),
        code=stage_fingerprint("convert-checkpoint"),
    log:
        "logs/convert-checkpoint/{model}.log",
    benchmark:
        f"{RESULTS}/times/convert-checkpoint/{{model}}.tsv"
    resources:
        gpu=0,
        mem_mb=4000,
        runtime=30,
    conda:
        "../../envs/edadm.yaml"
    shell:
        "{PYTHON} -m edadm convert-checkpoint --model {params.model:q} --output {output:q} 2>&1 | tee {log:q}"
