rule set_ranges:
    input:
        unet=f"{RESULTS}/{{model}}/fp32/unet.safetensors",
        chosen=f"{RESULTS}/{{model}}/{{calibration}}/calibration.safetensors",
    output:
        f"{RESULTS}/{{model}}/{{calibration}}/{{bits}}/ranges.safetensors",
    log:
        "logs/set-ranges/{model}/{calibration}/{bits}.log",
    benchmark:
        f"{RESULTS}/times/set-ranges/{{model}}/{{calibration}}/{{bits}}.tsv"
    conda:
        "../../envs/edadm.yaml"
    threads: 1
    resources:
        gpu=a_gpu,
        mem_mb=growing(4000),
        runtime=lasting(240),
    params:
        device=device_of,
        model=model_with(*set_ranges_stage.MODEL),
        settings=model_settings(*set_ranges_stage.MODEL),
        bits=preset_of("bits", "bits"),
        label=label_of("set-ranges", "model", "bits"),
        code=stage_fingerprint("set_ranges"),
        gpu_code=code_of_gpus(
            "set_ranges", f"{RESULTS}/{{model}}/{{calibration}}/{{bits}}/ranges.safetensors"
        ),
    shell:
        "python3 -m edadm set-ranges --model {params.model:q} --bits {params.bits:q} --unet {input.unet:q}"
        " --calibration-set {input.chosen:q} --output {output:q} --device {params.device:q} --threads {threads:q}"
        " --label {params.label:q} 2>&1 | tee {log:q}"


rule reconstruct_part:
    input:
        unet=f"{RESULTS}/{{model}}/fp32/unet.safetensors",
        chosen=f"{RESULTS}/{{model}}/{{calibration}}/calibration.safetensors",
        ranges=f"{RESULTS}/{{model}}/{{calibration}}/{{bits}}/ranges.safetensors",
    output:
        directory(
            f"{RESULTS}/{{model}}/{{calibration}}/{{bits}}/{{reconstruction}}/units/{{share}}_of_{{jobs}}"
        ),
    log:
        "logs/reconstruct-part/{model}/{calibration}/{bits}/{reconstruction}/{share}_of_{jobs}.log",
    benchmark:
        f"{RESULTS}/times/reconstruct-part/{{model}}/{{calibration}}/{{bits}}/{{reconstruction}}/{{share}}_of_{{jobs}}.tsv"
    conda:
        "../../envs/edadm.yaml"
    threads: 1
    resources:
        gpu=a_gpu,
        mem_mb=growing(reconstruct_memory),
        runtime=lasting(1440),
    params:
        device=device_of,
        model=model_with(*reconstruct_stage.MODEL),
        settings=model_settings(*reconstruct_stage.MODEL),
        bits=preset_of("bits", "bits"),
        reconstruction=reconstruction_with,
        learning=reconstruction_settings,
        progress=lambda wildcards, output: f"{reconstruct_progress(wildcards)}.{wildcards.share}_of_{wildcards.jobs}",
        label=label_of("reconstruct-part", "model", "bits", "reconstruction", "share"),
        code=stage_fingerprint("reconstruct.reconstruct_part"),
        gpu_code=code_of_gpus(
            "reconstruct.reconstruct_part",
            f"{RESULTS}/{{model}}/{{calibration}}/{{bits}}/{{reconstruction}}/units/{{share}}_of_{{jobs}}",
        ),
    shell:
        "python3 -m edadm reconstruct-part --model {params.model:q} --bits {params.bits:q}"
        " --reconstruction {params.reconstruction:q} --unet {input.unet:q} --calibration-set {input.chosen:q}"
        " --ranges {input.ranges:q} --output {output:q} --progress {params.progress:q} --part {wildcards.share:q} --device {params.device:q} --threads {threads:q}"
        " --label {params.label:q} 2>&1 | tee {log:q}"


rule reconstruct:
    input:
        unet=f"{RESULTS}/{{model}}/fp32/unet.safetensors",
        chosen=f"{RESULTS}/{{model}}/{{calibration}}/calibration.safetensors",
        ranges=f"{RESULTS}/{{model}}/{{calibration}}/{{bits}}/ranges.safetensors",
        units=finished_units,
    output:
        quantized=f"{RESULTS}/{{model}}/{{calibration}}/{{bits}}/{{reconstruction}}/quantized.safetensors",
        losses=f"{RESULTS}/{{model}}/{{calibration}}/{{bits}}/{{reconstruction}}/losses.csv",
    log:
        "logs/reconstruct/{model}/{calibration}/{bits}/{reconstruction}.log",
    benchmark:
        f"{RESULTS}/times/reconstruct/{{model}}/{{calibration}}/{{bits}}/{{reconstruction}}.tsv"
    conda:
        "../../envs/edadm.yaml"
    threads: 1
    resources:
        gpu=a_gpu,
        mem_mb=growing(reconstruct_memory),
        runtime=lasting(1440),
    params:
        device=device_of,
        model=model_with(*reconstruct_stage.MODEL, *reconstruct_stage.SAMPLED),
        settings=model_settings(*reconstruct_stage.MODEL),
        bits=preset_of("bits", "bits"),
        reconstruction=reconstruction_with,
        learning=reconstruction_settings,
        progress=lambda wildcards, output: reconstruct_progress(wildcards),
        units=lambda wildcards, input: [f"--part={folder}" for folder in input.units],
        label=label_of("reconstruct", "model", "bits", "reconstruction"),
        code=stage_fingerprint("reconstruct"),
        gpu_code=code_of_gpus(
            "reconstruct",
            f"{RESULTS}/{{model}}/{{calibration}}/{{bits}}/{{reconstruction}}/quantized.safetensors",
        ),
    shell:
        "python3 -m edadm reconstruct --model {params.model:q} --bits {params.bits:q}"
        " --reconstruction {params.reconstruction:q} --unet {input.unet:q} --calibration-set {input.chosen:q}"
        " --ranges {input.ranges:q} --output {output.quantized:q} --losses {output.losses:q}"
        " --progress {params.progress:q} {params.units:q} --device {params.device:q} --threads {threads:q}"
        " --label {params.label:q} 2>&1 | tee {log:q}"
