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
        table=report(
            f"{RESULTS}/report/metrics.csv",
            caption="../report/metrics.rst",
            category="Results",
            labels={"what": "Scores of every variant"},
        ),
    params:
        config=CONFIG.model_dump_json(by_alias=True),
        code=stage_fingerprint("report"),
    log:
        "logs/report.log",
    resources:
        gpu=0,
        mem_mb=2000,
        runtime=30,
    conda:
        "../../envs/edadm.yaml"
    shell:
        "{PYTHON} -m edadm report --results {RESULTS:q} --config {params.config:q} --output {output.page:q} 2>&1 | tee {log:q}"
