rule benchmark:
    input:
        weights=model_weights,
    output:
        f"{RESULTS}/{{model}}/speed.json",
    log:
        "logs/benchmark/{model}.log",
    benchmark:
        f"{RESULTS}/times/benchmark/{{model}}.tsv"
    conda:
        "../../envs/edadm.yaml"
    threads: 1
    resources:
        gpu=a_gpu,
        mem_mb=growing(4000),
        runtime=lasting(60),
    params:
        device=device_of,
        model=model_with(*benchmark_stage.MODEL),
        settings=model_settings(*benchmark_stage.MODEL),
        weights=named_weights,
        backends=lambda wildcards: [f"--backend={name}" for name in timed_backends(wildcards.model)],
        code=timed_code,
        gpu_code=code_of_gpus("benchmark", f"{RESULTS}/{{model}}/speed.json", timed_modules),
    shell:
        "python3 -m edadm benchmark unet {params.weights:q} --model {params.model:q} --output {output:q}"
        " {params.backends:q} --device {params.device:q} --threads {threads:q} 2>&1 | tee {log:q}"
