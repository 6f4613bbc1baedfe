// Every checkpoint a row.
"use strict";

atlas.start(async () => {
  const [study, table] = await Promise.all([atlas.data("study"), atlas.data("checkpoints")]);
  const models = atlas.byKey(study.models), datasets = atlas.byKey(study.datasets), recipes = atlas.byKey(study.recipes), methods = atlas.byKey(study.methods);
  const benchmarks = study.benchmarks.filter((entry) => table.scores[entry.key]);
  const rows = table.address.map((_, i) => i);
  const control = (name) => document.getElementById(name);
  const $ = Object.fromEntries(["model", "dataset", "method", "recipe", "group", "show", "last", "shade"].map((name) => [name, control(name)]));

  const text = (title, value, more = {}) => ({ title, value, ...more });
  const numeric = (title, key, digits, more = {}) => ({ title, value: (i) => table[key]?.[i] ?? null, digits, ...more });
  const integer = (title, key, more) => numeric(title, key, 0, { show: (i) => atlas.whole(table[key][i]), ...more });
  const shaded = (value, limit) => (i) => (value(i) === null ? 0 : value(i) / limit);

  const columns = [
    text("Base model", (i) => atlas.label(models, table.model[i]), { show: (i) => atlas.link(table.address[i], atlas.label(models, table.model[i])) }),
    text("Training set", (i) => (table.dataset[i] === "base" ? "" : atlas.label(datasets, table.dataset[i]))),
    text("Method", (i) => atlas.label(methods, table.method[i])),
    text("Recipe", (i) => (table.recipe[i] === "base" ? "" : atlas.label(recipes, table.recipe[i])), { hidden: true }),
    integer("Rows", "rows"),
    integer("Epoch", "epoch"),
    integer("Seed", "seed", { hidden: true, show: (i) => table.seed[i] ?? "–" }),
    text("Schedule", (i) => table.schedule[i], { hidden: true }),
    ...(table.source ? [text("Source", (i) => table.source[i])] : []),
    numeric("Mean gain", "mean_gain", 1, {
      show: (i) => (table.mean_gain[i] === null ? "–" : `${atlas.signed(table.mean_gain[i])} ± ${atlas.number(table.mean_gain_stderr[i])}`),
      hint: (i) => (table.mean_gain[i] === null ? "" : `mean over the ${benchmarks.length} benchmarks, ± standard error over items`),
      extra: { stderr: (i) => table.mean_gain_stderr[i] },
      shade: shaded((i) => table.mean_gain[i], table.limits.mean),
    }),
  ];
  const scored = new Map(); // column -> benchmark and what it shows
  for (const benchmark of benchmarks) {
    const own = table.scores[benchmark.key];
    const at = (i) => Object.fromEntries(Object.entries(own).map(([key, list]) => [key, list[i]]));
    const hint = (i) =>
      own.score[i] === null
        ? `${benchmark.label}: no score`
        : `${benchmark.label}: ${atlas.number(own.score[i])} ± ${atlas.number(own.stderr[i])}, n = ${atlas.whole(own.n[i])}; gain ${atlas.gain(at(i))}`;
    const shade = shaded((i) => own.gain[i], table.limits.scores[benchmark.key]);
    scored.set(columns.length, [benchmark, "score"]);
    columns.push({
      title: benchmark.label,
      value: (i) => own.score[i],
      digits: 1,
      show: (i) => (own.score[i] === null ? "–" : `${atlas.number(own.score[i])} ± ${atlas.number(own.stderr[i])}`),
      hint,
      shade,
      extra: { stderr: (i) => own.stderr[i], n: (i) => own.n[i] },
    });
    scored.set(columns.length, [benchmark, "gain"]);
    columns.push({
      title: `${benchmark.label}, gain`,
      value: (i) => own.gain[i],
      digits: 1,
      show: (i) => (own.gain[i] === null ? "–" : `${atlas.signed(own.gain[i])} ± ${atlas.number(own.gain_stderr[i])}`),
      hint,
      shade,
      hidden: true,
      extra: { stderr: (i) => own.gain_stderr[i], low: (i) => own.low[i], high: (i) => own.high[i], q: (i) => own.q[i], n: (i) => own.pairs[i] },
    });
  }
  const measured = (title, key, hint) => (table[key] ? [numeric(title, key, 2, { show: (i) => atlas.figures(table[key][i]), hint: (i) => (table[key][i] === null ? "" : hint) })] : []);
  columns.push(
    ...measured("Perplexity", "perplexity", "of the training set's responses under the base model"),
    ...measured("Weight change", "weight_change", "relative change of all weights, at the last epoch"),
    ...measured("Training loss", "train_loss", "mean over the run"),
    ...["dtype", "device"].filter((key) => table[key]).map((key) => text(key, (i) => table[key][i], { hidden: true })),
  );

  const present = (list, key) => list.filter((entry) => table[key].includes(entry.key)).map((entry) => [entry.key, entry.label]);
  atlas.fill($.model, [["", "all"], ...present(study.models, "model")]);
  atlas.fill($.dataset, [["", "all"], ...present(study.datasets, "dataset"), ["base", "none (base models)"]]);
  atlas.fill($.method, [["", "all"], ...present(study.methods, "method")]);
  atlas.fill($.recipe, [["", "all"], ...present(study.recipes, "recipe")]);
  const groups = [...new Set(benchmarks.map((entry) => entry.group))];
  atlas.fill($.group, [["", "all"], ...groups.map((group) => [group, group])]);
  const wanted = new URLSearchParams(location.search);
  for (const [key, value] of wanted) if ($[key]) $[key].type === "checkbox" ? ($[key].checked = value === "true") : ($[key].value = value);

  const lost = table.missing;
  if (lost.length)
    document.getElementById("missing").textContent =
      `${atlas.whole(lost.length)} of ${atlas.whole(rows.length)} checkpoints have no score: ${lost.slice(0, 10).join(", ")}${lost.length > 10 ? " and others" : ""}.`;

  const shown = ([benchmark, what]) => (!$.group.value || benchmark.group === $.group.value) && [what, "both"].includes($.show.value);
  for (const [place, entry] of scored) columns[place].hidden = !shown(entry);
  const picked = (i) =>
    ["model", "dataset", "method", "recipe"].every((key) => !$[key].value || table[key][i] === $[key].value) && (!$.last.checked || table.last[i]);
  const made = atlas.table(document.getElementById("table"), columns, rows, { name: `${study.study}-checkpoints`, filter: picked });
  for (const key of ["model", "dataset", "method", "recipe", "last"]) $[key].addEventListener("change", () => made.draw());
  for (const key of ["group", "show"])
    $[key].addEventListener("change", () => {
      for (const [place, entry] of scored) made.column(place).visible(shown(entry), false);
      made.columns.adjust();
    });
  $.shade.addEventListener("change", () => document.getElementById("table").classList.toggle("plain", !$.shade.checked));
});
