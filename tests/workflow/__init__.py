"""Tests of the workflow as a whole: real Snakemake runs of a toy project, undisturbed, killed, resumed and changed."""
