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
        gpu=0,
        mem_mb=4000,
        runtime=240,
    params:
        model=model_with("architecture"),
        bits=preset_of("bits", "bits"),
        code=stage_fingerprint("set-ranges"),
    shell:
        "python3 -m edadm set-ranges --model {params.model:q} --bits {params.bits:q} --unet {input.unet:q}"
        " --calibration-set {input.chosen:q} --output {output:q} --threads {threads}"
        " --label 'set-ranges {wildcards.model} {wildcards.bits}' 2>&1 | tee {log:q}"


rule reconstruct_part:
    input:
        unet=f"{RESULTS}/{{model}}/fp32/unet.safetensors",
        chosen=f"{RESULTS}/{{model}}/{{calibration}}/calibration.safetensors",
        ranges=f"{RESULTS}/{{model}}/{{calibration}}/{{bits}}/ranges.safetensors",
    output:
        directory(f"{RESULTS}/{{model}}/{{calibration}}/{{bits}}/{{reconstruction}}/units/{{share}}"),
    log:
        "logs/reconstruct-part/{model}/{calibration}/{bits}/{reconstruction}/{share}.log",
    benchmark:
        f"{RESULTS}/times/reconstruct-part/{{model}}/{{calibration}}/{{bits}}/{{reconstruction}}/{{share}}.tsv"
    conda:
        "../../envs/edadm.yaml"
    threads: 1
    resources:
        gpu=0,
        mem_mb=reconstruct_memory,
        runtime=1440,
    params:
        model=model_with("architecture"),
        bits=preset_of("bits", "bits"),
        reconstruction=preset_of("reconstructions", "reconstruction"),
        progress=lambda wildcards: f"{reconstruct_progress(wildcards)}.{wildcards.share}",
        code=stage_fingerprint("reconstruct-part"),
    shell:
        "python3 -m edadm reconstruct-part --model {params.model:q} --bits {params.bits:q}"
        " --reconstruction {params.reconstruction:q} --unet {input.unet:q} --calibration-set {input.chosen:q}"
        " --ranges {input.ranges:q} --output {output:q} --progress {params.progress:q} --part {wildcards.share} --threads {threads}"
        " --label 'reconstruct-part {wildcards.model} {wildcards.bits}/{wildcards.reconstruction} {wildcards.share}' 2>&1 | tee {log:q}"


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
        gpu=0,
        mem_mb=reconstruct_memory,
        runtime=1440,
    params:
        model=model_with("architecture"),
        bits=preset_of("bits", "bits"),
        reconstruction=preset_of("reconstructions", "reconstruction"),
        progress=reconstruct_progress,
        units=lambda wildcards, input: [f"--part={folder}" for folder in input.units],
        code=stage_fingerprint("reconstruct"),
    shell:
        "python3 -m edadm reconstruct --model {params.model:q} --bits {params.bits:q}"
        " --reconstruction {params.reconstruction:q} --unet {input.unet:q} --calibration-set {input.chosen:q}"
        " --ranges {input.ranges:q} --output {output.quantized:q} --losses {output.losses:q}"
        " --progress {params.progress:q} {params.units:q} --threads {threads}"
        " --label 'reconstruct {wildcards.model} {wildcards.bits}/{wildcards.reconstruction}' 2>&1 | tee {log:q}"
