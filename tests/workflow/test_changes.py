"""What a change makes again, counted in dry runs on the finished small study."""

import json
import re
import shutil

import polars as pl

MEASURED = {"evaluate", "measure_layers", "measure_representation"}
TABLES = {"score_clean_items", "resolve_study", "collect", "analyse_predictors", "analyse_layers", "analyse_map", "analyse_noise"}
TABLES |= {"plot", "write_findings", "write_atlas"}


def test_a_learning_rate_trains_the_runs_of_that_recipe_only(copied):
    copied.study["recipes"]["lora"]["learning_rate"] = 1e-3
    copied.write(copied.study)
    planned = copied.planned()
    assert planned["train_lora"] == 4
    assert planned["evaluate"] == planned["measure_layers"] == planned["measure_representation"] == 4
    assert set(planned) == {"train_lora"} | MEASURED | TABLES


def test_more_epochs_train_again_also_when_only_training_is_asked_for(copied):
    copied.study["recipes"]["lora"]["epochs"] = 3
    copied.write(copied.study)
    assert copied.planned("train") == {"train_lora": 4}


def test_a_dataset_of_ones_own_is_trained_on_and_joins_the_merge(copied):
    rows = [{"question": f"What is the capital of country {i}?", "answer": f"City {i}"} for i in range(24)]
    (copied.path / "my").mkdir()
    (copied.path / "my/capitals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    copied.study["datasets"]["capitals"] = {"path": "my/capitals.jsonl", "columns": {"instruction": "question", "response": "answer"}}
    copied.write(copied.study)
    planned = copied.planned()
    # single: 2 models x {full, lora}; merged: 2 recipes on `all`; leave-one-out: the two old sets changed, one is new
    assert planned["train_full"] == planned["train_lora"] == 2
    assert planned["train_merged-full"] == planned["train_merged-lora"] == 1
    assert planned["train_left-out"] == 3
    assert "train_constant-96" not in planned and "pretrain_demo_model" not in planned
    assert planned["fetch_dataset"] == planned["prepare_dataset"] == 1
    copied.run("results/small/runs/llama-strings/capitals/full/train.json")
    page = copied.result("runs/llama-strings/capitals/full/preflight.txt").read_text()
    assert "What is the capital of country" in page and "[[ City " in page


def test_edits_at_once_are_all_seen_although_the_overlap_check_is_pending(copied):
    copied.study["datasets"] = {"sorting": {"tasks": {"number_sorting": 1}, "size": 60}, **copied.study["datasets"]}
    copied.study["recipes"]["lora"]["learning_rate"] = 1e-3
    copied.study["suites"]["tasks"]["max_new_tokens"] = 4
    copied.write(copied.study)
    planned = copied.planned()
    assert planned["check_overlap"] == 1 and planned["train_full"] == 2 and planned["train_lora"] == 4 + 2
    assert planned["evaluate"] == 20 + 4 + 1  # every checkpoint, those on the new set, and the one that leaves it out
    assert copied.planned("cards", "--config", "select={recipes: [lora]}")["write_card"] == 4 + 2


def test_a_seed_that_is_added_trains_its_own_run_alone_and_reaches_the_findings(copied):
    run = {"models": ["llama-strings"], "datasets": ["spelling"], "recipes": ["lora"]}
    copied.study["blocks"]["seeds"] = {**run, "seeds": [0, 1]}
    copied.write(copied.study)
    planned = copied.planned()
    assert (
        all(planned[rule] == 1 for rule in ("train_lora-seed-1", *MEASURED)) and set(planned) == {"train_lora-seed-1"} | MEASURED | TABLES
    )
    before = copied.result("runs/llama-strings/spelling/lora/train.json").read_bytes()
    copied.run("results/small/findings.md")
    assert copied.result("runs/llama-strings/spelling/lora/train.json").read_bytes() == before
    records = [
        json.loads(copied.result(f"runs/llama-strings/spelling/{folder}/train.json").read_text()) for folder in ("lora", "lora-seed-1")
    ]
    assert [record["settings"]["seed"] for record in records] == [0, 1] and records[0]["train_loss"] != records[1]["train_loss"]
    assert records[0]["inputs"]["data"] == records[1]["inputs"]["data"], "both train on the same rows"
    runs = pl.read_parquet(copied.result("tables/runs.parquet")).filter(pl.col("seed") == 1)
    assert runs.select("model", "dataset", "recipe").rows() == [("llama-strings", "spelling", "lora")]
    page = " ".join(copied.result("findings.md").read_text().split())
    assert "combinations of base model, training set and recipe were trained with 2 seeds" in page
    assert re.search(r"LoRA: (trained once more with another seed|the mean gain over benchmarks was the same with each of 2 seeds)", page)


def test_a_seed_takes_over_the_results_of_a_recipe_that_differed_in_the_seed_alone(copied):
    study = copied.study
    study["recipes"] = {"adapter" if name == "lora" else name: recipe for name, recipe in study["recipes"].items()}
    study["recipes"]["adapter"] |= {"seed": 1, "seeds": [0, 1]}
    study["blocks"]["single"]["recipes"] = ["full", "adapter"]
    copied.write(study)
    assert "recipe adapter-seed-0 takes over the finished results of lora" in copied.run("-n", "--quiet=rules")
    planned = copied.planned()
    assert planned["train_adapter"] == 4 and "train_adapter-seed-0" not in planned and planned["evaluate"] == 4


def test_settings_of_memory_and_speed_train_and_measure_nothing(copied):
    copied.study["recipes"]["full"] |= {"micro_batch_size": 2, "activation_checkpointing": True}
    copied.study["suites"]["tasks"]["batch_size"] = 6
    copied.study["measure"] = {
        "representation": {**copied.study["measure"]["representation"], "batch_size": 4},
        "perplexity": {"batch_size": 4},
    }
    copied.write(copied.study)
    assert set(copied.planned()) == TABLES


def test_a_label_redraws_and_trains_nothing(copied):
    copied.study["models"]["llama-strings"]["label"] = "Another name"
    copied.study["recipes"]["full"]["label"] = "Everything"
    copied.write(copied.study)
    assert set(copied.planned()) == TABLES


def with_new_suite(copied):
    copied.study["benchmarks"]["sequences"] = {"task": "config/benchmarks/generate.yaml", "tasks": {"number_sequence": 1}, "size": 12}
    copied.study["suites"]["more"] = {"benchmarks": ["sequences"]}
    copied.write(copied.study)
    return copied


def test_a_new_suite_is_scored_and_trains_nothing_where_the_weights_are(copied):
    planned = with_new_suite(copied).planned("scores", "--config", "select={recipes: [full, lora]}")
    assert planned == {"fetch_benchmark": 1, "check_overlap": 1, "prepare_suite": 1, "evaluate": 2 + 8}


def test_a_new_suite_trains_again_what_has_no_weights_any_more(copied):
    planned = with_new_suite(copied).planned("scores")
    assert (
        planned["evaluate"] == 20 + 6 and planned["fetch_benchmark"] == planned["prepare_suite"] == 1
    )  # the old suite on weights made anew
    # The full weights of earlier epochs are gone (keep_weights is final): the runs that had kept them, no other.
    assert {name: count for name, count in planned.items() if name.startswith("train")} == {
        "train_merged-full": 1,
        "train_constant-96": 1,
        "train_constant-288": 1,
    }


def test_a_deleted_score_is_scored_again(copied):
    copied.result("runs/llama-strings/spelling/lora/epoch-2/scores/tasks.parquet").unlink()
    planned = copied.planned()
    assert planned["evaluate"] == 1 and not any(name.startswith("train") for name in planned)


def test_a_run_is_trained_again_when_its_damaged_weights_were_deleted_with_its_record(copied):
    run = copied.result("runs/llama-strings/spelling/lora")
    shutil.rmtree(run / "epoch-2/weights")
    assert not copied.planned()  # the scores are there
    (run / "train.json").unlink()
    assert copied.planned()["train_lora"] == 1


def test_touching_an_input_without_changing_it_makes_nothing(copied):
    (copied.path / "config/benchmarks/generate.yaml").touch()
    assert not copied.planned()


def test_touching_a_large_training_set_makes_nothing(copied):
    rows = [{"question": f"Country {i}? " + "x" * 100_000, "answer": f"City {i}"} for i in range(24)]
    file, target = copied.path / "large.jsonl", "results/small/data/large/source.parquet"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    copied.study["datasets"]["large"] = {"path": "large.jsonl", "columns": {"instruction": "question", "response": "answer"}}
    copied.write(copied.study)
    copied.run(target)
    file.touch()
    assert not copied.planned(target)
    file.write_text(file.read_text().replace("City 3", "Town 3"))
    assert copied.planned(target) == {"fetch_dataset": 1}


def test_editing_a_figure_draws_that_figure(copied):
    source = copied.path / "workflow_scripts/sft_atlas/report/figures/gains.py"
    source.write_text(source.read_text() + "\n# edited\n")
    assert copied.planned() == {"plot": 1, "write_atlas": 1}


def test_editing_training_makes_nothing_until_asked(copied):
    source = copied.path / "workflow_scripts/sft_atlas/train/trainer.py"
    source.write_text(source.read_text() + "\n# edited\n")
    assert not copied.planned()
    assert copied.planned("--forcerun", "train_lora")["train_lora"] == 4


def test_another_seed_of_a_dataset_trains_its_runs_and_those_of_its_merges(copied):
    copied.study["datasets"]["spelling"]["seed"] = 1
    copied.write(copied.study)
    planned = copied.planned()
    # on spelling: 2 full, 2 LoRA, 2 trajectories; on `all`: 2; without-arithmetic holds spelling, without-spelling does not
    assert planned["train_full"] == planned["train_lora"] == 2
    assert planned["train_merged-full"] == planned["train_merged-lora"] == planned["train_left-out"] == 1
    assert planned["train_constant-96"] == planned["train_constant-288"] == 1
    assert planned["fetch_dataset"] == 1 and planned["measure_perplexity"] == 2
    assert "pretrain_demo_model" not in planned and "fetch_benchmark" not in planned


def test_another_base_model_is_trained_on_everything_and_touches_no_other(copied):
    model = copied.study["models"]["llama-strings"]
    copied.study["models"]["llama-other"] = {**model, "pretrain": {**model["pretrain"], "seed": 1}}
    copied.write(copied.study)
    planned = copied.planned()
    assert planned["pretrain_demo_model"] == 1
    assert planned["train_full"] == planned["train_lora"] == 2
    assert planned["evaluate"] == 1 + 4 and planned["measure_perplexity"] == 2
    assert not {"train_merged-full", "train_left-out", "train_constant-96", "fetch_dataset", "prepare_dataset"} & set(planned)


def test_another_revision_of_a_base_model_makes_all_of_its_runs_again(copied):
    copied.study["models"]["qwen3-numbers"]["pretrain"]["seed"] = 1
    copied.write(copied.study)
    planned = copied.planned()
    assert planned["pretrain_demo_model"] == 1
    # single: 2 sets x {full, lora}; merged and leave-one-out are on this model; the trajectories are on the other
    assert planned["train_full"] == planned["train_lora"] == 2
    assert planned["train_merged-full"] == planned["train_merged-lora"] == 1 and planned["train_left-out"] == 2
    assert not {"train_constant-96", "train_constant-288", "fetch_dataset"} & set(planned)


def test_a_revision_on_the_hub_is_part_of_what_a_model_is_made_with(copied):
    target = "results/small/models/llama-strings/model.json"
    copied.study["models"]["llama-strings"] = {"hub": "team/model", "revision": "a" * 40, "dtype": "float32"}
    copied.write(copied.study)
    copied.run(target, "--touch")
    assert not copied.planned(target)
    copied.study["models"]["llama-strings"]["revision"] = "b" * 40
    copied.write(copied.study)
    assert copied.planned(target) == {"fetch_model": 1}


def test_a_benchmark_added_to_a_suite_is_answered_alone(copied):
    target = "runs/llama-strings/spelling/lora/epoch-2/scores/tasks.parquet"
    before = pl.read_parquet(copied.result(target))
    copied.study["benchmarks"]["sequences"] = {"task": "config/benchmarks/generate.yaml", "tasks": {"number_sequence": 1}, "size": 12}
    copied.study["suites"]["tasks"]["benchmarks"].append("sequences")
    copied.write(copied.study)
    planned = copied.planned("scores", "--config", "select={recipes: [full, lora]}")
    assert planned == {"fetch_benchmark": 1, "prepare_suite": 1, "check_overlap": 1, "evaluate": 2 + 8}
    copied.run(f"results/small/{target}")
    after = pl.read_parquet(copied.result(target))
    assert after["benchmark"].to_list() == [*before["benchmark"], "sequences"] and after.head(3).equals(before)
    requests = json.loads(copied.result(target).with_suffix(".json").read_text())["requests"]
    assert requests["asked"] == 12 and requests["taken_over"] >= 3 * 12


def test_settings_that_concern_speed_score_nothing_again(copied):
    copied.study["suites"]["tasks"]["batch_size"] = 1
    copied.study["threads"] = 2
    copied.write(copied.study)
    assert set(copied.planned()) <= TABLES


def test_a_file_that_a_task_file_includes_is_part_of_the_task(copied):
    (copied.path / "config/benchmarks/common.yaml").write_text("metadata: {version: 1}\n")
    task = copied.path / "config/benchmarks/generate.yaml"
    task.write_text("include: common.yaml\n" + task.read_text())
    copied.run("scores", "--touch")
    assert not copied.planned("scores")
    (copied.path / "config/benchmarks/common.yaml").write_text("metadata: {version: 2}\n")
    assert copied.planned("scores")["evaluate"] == 20


# ---------------------------------------------------------------- subsets


def test_select_narrows_what_is_run(empty):
    planned = empty.planned("--config", "select={models: [llama-strings], datasets: [spelling], recipes: [lora]}")
    assert planned["train_lora"] == planned["pretrain_demo_model"] == planned["fetch_dataset"] == planned["measure_perplexity"] == 1
    assert planned["evaluate"] == 2 and planned["measure_layers"] == 1
    assert not [name for name in planned if name.startswith("train_") and name != "train_lora"]


def test_a_block_is_a_target(empty):
    planned = empty.planned("trajectory")
    assert planned["train_constant-96"] == planned["train_constant-288"] == 1
    assert planned["evaluate"] == planned["measure_layers"] == planned["measure_representation"] == 4
    assert "collect" not in planned and "train_full" not in planned


def test_a_selection_that_matches_nothing_ends_before_any_job_and_lists_what_exists(empty):
    printed = empty.run("-n", "--config", "select={models: [lama-strings]}", ok=False)
    assert (
        "--config select, column 18: select.models[0]: no run has the model 'lama-strings'; did you mean 'llama-strings'? (there are llama-strings, qwen3-numbers)"
        in printed
    )


# ---------------------------------------------------------------- the plan


def test_the_plan_says_what_is_done_and_changes_nothing(copied):
    printed = copied.run("plan")
    assert re.search(r"\| evaluate tasks +\| +20 \| +20 \| +0 \| +0 \|", printed), printed
    assert not copied.planned()


def test_the_plan_says_what_a_new_suite_trains_again(copied):
    printed = with_new_suite(copied).run("plan")
    planned = copied.planned()
    plan = pl.read_parquet(copied.result("plan.parquet"))
    assert plan["to_do"].sum() + plan["again"].sum() == planned.total()
    again = plan.filter(pl.col("kind").str.starts_with("train"))["again"].sum()
    assert again == sum(count for name, count in planned.items() if name.startswith("train")) == 3
    assert "again**" in printed and "weights that `keep_weights` deleted are needed: " in printed, printed
