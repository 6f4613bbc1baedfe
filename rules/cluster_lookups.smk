# What jobs ask a cluster for: `**cluster("name of the script")` under `resources`. Without a site file, that is, in local runs, GPUs
# alone, and those only where the machine has some.
#
# requires  `wider`, `site`

needs = resources.Needs(Forecast(wider, device, Path(RESULTS)), gpus=site.device != "cpu") if site else None

if site and workflow.is_main_process and (runs := resources.too_large(needs)):
    logger.warning(
        f"{len(runs)} runs do not fit into the memory of their GPUs ({site.device}), {runs[0]} for one: weights, gradients and Adam's "
        "moments alone are larger. Give their recipe more `gpus`, or name a larger device in the site file."
    )


def in_group(kind):
    """Whether the profile groups these jobs. All jobs of a group must name the same partition and GPUs."""
    return kind in workflow.group_settings.overwrite_groups


GPUS = local_gpus.found() if site is None else []
ON_GPU = ("train", "evaluate", "evaluate_vllm", "generate", "measure_perplexity", "measure_representation", "measure_similarity")

if GPUS and workflow.is_main_process:
    os.environ[local_gpus.VARIABLE] = ",".join(GPUS)  # jobs look there, and take one that is free
    if "gpu" not in workflow.global_resources:
        workflow.register_resource("gpu", len(GPUS))


def gpus_of_run(wildcards):
    """GPUs of a training run."""
    return study.runs[wildcards.model, wildcards.dataset, wildcards.recipe].settings.gpus


def cluster(kind):
    """Resources of the jobs whose script is `kind`, as functions of wildcards and attempt; in local runs GPUs alone."""
    if site is None:
        return {"gpu": gpus_of_run if kind == "train" else 1} if GPUS and kind in ON_GPU else {}

    known = {}

    def want(wildcards, attempt=1):
        """The need of a job, worked out once for all its resources."""
        key = (*wildcards, attempt)
        if key not in known:
            known[key] = work_out(wildcards, attempt)
        return known[key]

    def work_out(wildcards, attempt):
        need = needs.of(kind, wildcards)
        if kind == "measure_layers" and in_group(kind):
            need = replace(need, gpus=needs.gpus)
        share = needs.share(kind, wildcards) if in_group(kind) else 1
        if attempt == 1:
            return resources.grown(need, {}, site, share)
        log = workflow.get_rule(f"train_{wildcards.recipe}" if kind == "train" else kind).expand_log(wildcards)
        return resources.grown(need, slurm.shortages(Path(str(log[0])), attempt - 1), site, share)

    def mem_mb(wildcards, attempt):
        return want(wildcards, attempt).mem_mb

    def runtime(wildcards, attempt):
        return want(wildcards, attempt).minutes

    def partition(wildcards):
        classes = site.partitions
        need = want(wildcards).partition
        return getattr(classes, need) or (classes.gpu if need == "multi_gpu" else None)

    def gres(wildcards):
        flavour = f"{site.gpu_flavour}:" if site.gpu_flavour else ""
        gpus = want(wildcards).gpus
        return f"gpu:{flavour}{gpus}" if gpus else None

    def cpus(wildcards, threads):
        return max(threads, site.cpus_per_gpu * want(wildcards).gpus)

    asked = {"mem_mb": mem_mb, "runtime": runtime, "slurm_partition": partition, "gres": gres, "cpus_per_task": cpus}
    if kind in ("evaluate", "evaluate_vllm", "generate", "measure_layers", "measure_representation"):
        asked["slot"] = 1  # see the profile
    facts = {"slurm_account": site.account, "qos": site.qos, "constraint": site.constraint}
    return asked | {key: value for key, value in facts.items() if value}


def settle_leftovers():
    """Wait for jobs of an earlier call that are still in Slurm."""
    try:
        leftovers.settle(workflow, logger.warning, workflow.executor_settings.init_seconds_before_status_checks)
    except AtlasError as error:
        raise WorkflowError(str(error)) from None
