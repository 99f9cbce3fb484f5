rule collect_trajectories:
    input:
        unet=f"{RESULTS}/{{model}}/fp32/unet.safetensors",
        condition=model_part("condition"),
    output:
        directory(f"{RESULTS}/{{model}}/trajectories/{{shard}}.zarr"),
    log:
        "logs/collect-trajectories/{model}/{shard}.log",
    benchmark:
        f"{RESULTS}/times/collect-trajectories/{{model}}/{{shard}}.tsv"
    conda:
        "../../envs/edadm.yaml"
    threads: 1
    resources:
        gpu=a_gpu,
        mem_mb=growing(4000),
        runtime=lasting(720),
    params:
        device=device_of,
        model=model_with(*collect_stage.MODEL),
        settings=model_settings(*collect_stage.MODEL),
        prompts=prompts_content,
        parts=part_options("condition"),
        progress=lambda wildcards, output: f"{RESULTS}/{wildcards.model}/trajectories/.{wildcards.shard}.progress",
        label=label_of("collect-trajectories", "model", "shard"),
        code=stage_fingerprint("collect"),
        gpu_code=code_of_gpus("collect", f"{RESULTS}/{{model}}/trajectories/{{shard}}.zarr"),
    shell:
        "python3 -m edadm collect-trajectories --model {params.model:q} --unet {input.unet:q} {params.parts:q}"
        " --shard {wildcards.shard:q} --output {output:q} --progress {params.progress:q} --device {params.device:q} --threads {threads:q}"
        " --label {params.label:q} 2>&1 | tee {log:q}"


rule select_calibration:
    input:
        trajectory_shards,
    output:
        chosen=f"{RESULTS}/{{model}}/{{calibration}}/calibration.safetensors",
        summary=f"{RESULTS}/{{model}}/{{calibration}}/selection.json",
    log:
        "logs/select-calibration/{model}/{calibration}.log",
    benchmark:
        f"{RESULTS}/times/select-calibration/{{model}}/{{calibration}}.tsv"
    conda:
        "../../envs/edadm.yaml"
    resources:
        gpu=0,
        mem_mb=growing(4000),
        runtime=lasting(60),
    params:
        trajectories=lambda wildcards, input: by_file(input),
        calibration=preset_of("calibrations", "calibration"),
        code=stage_fingerprint("select"),
    shell:
        "python3 -m edadm select-calibration {params.trajectories:q} --calibration {params.calibration:q}"
        " --output {output.chosen:q} --summary {output.summary:q} 2>&1 | tee {log:q}"
