rule convert_checkpoint:
    output:
        f"{RESULTS}/{{model}}/fp32/unet.safetensors",
    log:
        "logs/convert-checkpoint/{model}.log",
    benchmark:
        f"{RESULTS}/times/convert-checkpoint/{{model}}.tsv"
    conda:
        "../../envs/edadm.yaml"
    resources:
        gpu=0,
        mem_mb=growing(4000),
        runtime=lasting(30),
    params:
        model=model_with(*convert_stage.UNET),
        settings=model_settings(*convert_stage.UNET),
        checkpoint=checkpoint_content,
        code=stage_fingerprint("convert"),
    shell:
        "python3 -m edadm convert-checkpoint --model {params.model:q} --output {output:q} 2>&1 | tee {log:q}"


rule convert_part:
    output:
        f"{RESULTS}/{{model}}/fp32/{{part}}.safetensors",
    log:
        "logs/convert-checkpoint/{model}/{part}.log",
    conda:
        "../../envs/edadm.yaml"
    resources:
        gpu=0,
        mem_mb=growing(8000),
        runtime=lasting(30),
    params:
        model=model_with(*convert_stage.PARTS),
        settings=model_settings(*convert_stage.PARTS),
        checkpoint=checkpoint_content,
        code=stage_fingerprint("convert"),
    shell:
        "python3 -m edadm convert-checkpoint --model {params.model:q} --part {wildcards.part:q} --output {output:q} 2>&1 | tee {log:q}"
