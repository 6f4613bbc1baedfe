"""Run the job of one rule. This is how Snakemake starts every job, and how you run one by hand:

    python workflow_scripts/run.py measure_layers --help
    python workflow_scripts/run.py RULE ...            the command as `snakemake -p` prints it

The job of rule RULE is the module ``workflow_scripts/sft_atlas/{room}/RULE.py``. Where a local Snakemake has started the warm server
(``sft_atlas/core/warm.py``), jobs that need torch are forked from it and skip its imports; SFT_ATLAS_WARM=0 turns that off.
"""

import os
import sys

if __name__ == "__main__":
    sys.path[0] = os.path.dirname(os.path.abspath(__file__))
    from sft_atlas.core import warm

    if sys.argv[1:2] in ([], ["-h"], ["--help"]):
        print(__doc__)
    elif sys.argv[1] not in warm.RULES or not warm.forward(sys.argv):
        from sft_atlas.core import job, processes

        processes.end_with_snakemake()
        job.run(sys.argv[1], sys.argv[2:])
