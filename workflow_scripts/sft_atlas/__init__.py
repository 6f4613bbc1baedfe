"""Functions behind the jobs of sft-atlas; one room per stage of the chain; no module imports torch unless it needs it."""
