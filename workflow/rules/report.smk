rule report:
    input:
        report_inputs,
    output:
        page=report(
            f"{RESULTS}/report/index.html",
            caption="../report/page.rst",
            category="Results",
            labels={"what": "Pictures, scores, calibration, losses, sizes, times"},
        ),
        gallery=report(
            f"{RESULTS}/report/gallery.html",
            caption="../report/gallery.rst",
            category="Results",
            labels={"what": "Full precision and quantized images side by side, errors, bytes"},
        ),
        table=report(
            f"{RESULTS}/report/metrics.csv",
            caption="../report/metrics.rst",
            category="Results",
            labels={"what": "Scores of every variant"},
        ),
        markdown=f"{RESULTS}/report/metrics.md",
        ablation=report(
            f"{RESULTS}/report/ablation.csv",
            caption="../report/ablation.rst",
            category="Results",
            labels={"what": "Quantized variants by bits, reconstruction and selector"},
        ),
        ablation_markdown=f"{RESULTS}/report/ablation.md",
    log:
        "logs/report.log",
    conda:
        "../../envs/edadm.yaml"
    resources:
        gpu=0,
        mem_mb=growing(2000),
        runtime=lasting(30),
    params:
        results=lambda wildcards, output: str(Path(output.page).parents[1]),
        config=lambda wildcards, output: by_file(["--config", reported(paths=True)]),
        settings=reported(paths=False),
        code=stage_fingerprint("report"),
    shell:
        "python3 -m edadm report --results {params.results:q} {params.config:q} --output {output.page:q} 2>&1 | tee {log:q}"
