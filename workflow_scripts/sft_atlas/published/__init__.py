"""The scores that the authors of arXiv 2506.14681 released, or a CSV of the same form: audited, repaired, analysed.

    fetch_published -> tidy_published -> audit_published -> analyse_published -> plot_published, test_claims

Everything is computed under two policies: ``raw`` uses the scores as published, ``repaired`` recomputes faulty scores where an exact
repair exists and sets the others to null.
"""

POLICIES = ("raw", "repaired")
TABLES = (
    "gains", "consistency", "concordance", "similarity", "similarity_tests", "components", "loadings", "variance", "lora_full",
    "method_pairs", "size", "trajectories", "epoch_change", "left_out", "transfer", "noise",
    "method_correlation", "set_similarity", "set_agreement", "own_topic", "transfer_by_language", "components_zero_shot",
    "composite",
)  # fmt: skip
FIGURES = (
    "gains", "similarity", "similarity_base_free", "components", "consistency", "lora_full", "epochs", "size", "leave_one_out",
    "cross_lingual", "variance", "quality",
)  # fmt: skip
