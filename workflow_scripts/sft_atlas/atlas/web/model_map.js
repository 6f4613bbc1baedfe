// The map of checkpoints, and divergences to scale beside it.
"use strict";

atlas.start(async () => {
  const [study, table, map] = await Promise.all([atlas.data("study"), atlas.data("checkpoints"), atlas.data("model_map")]);
  const element = (name) => document.getElementById(name);
  const points = map.checkpoints;
  if (!points) {
    element("none").textContent =
      "This study has no map. It needs the log-likelihoods of three or more checkpoints: set measure_representation: true in the blocks of the study that should be on it, and run again.";
    return;
  }
  element("shown").hidden = false;
  const names = atlas.naming(study), methods = atlas.byKey(study.methods);
  const every = points.address.map((_, i) => i);
  const lists = { model: study.models, dataset: study.datasets, method: study.methods };
  const labels = { model: names.model, dataset: names.set, method: (key) => atlas.label(methods, key) };
  const colours = Object.fromEntries(Object.entries(lists).map(([key, list]) => [key, new Map(list.map((entry) => [entry.key, atlas.colour(entry.colour)]))]));
  const own = (list) => (i) => (points.number[i] === null ? null : (list[points.number[i]] ?? null));

  // What can be the colour: a kind of label, or a number with its ends.
  const NUMBERS = {
    epoch: { label: "epoch", value: (i) => points.epoch[i], show: (value) => atlas.whole(value) },
    distance: { label: "divergence from the base model", value: (i) => points.distance[i], show: (value) => `${atlas.figures(value)} bits per byte` },
    mean: { label: "mean gain", value: own(table.mean_gain), limit: table.limits.mean, show: (value) => `${atlas.signed(value)} points` },
  };
  const scored = study.benchmarks.filter((entry) => table.scores[entry.key]);
  for (const entry of scored) {
    NUMBERS[`gain ${entry.key}`] = { label: `gain, ${entry.label}`, value: own(table.scores[entry.key].gain), limit: table.limits.scores[entry.key], show: (value) => `${atlas.signed(value)} points` };
    NUMBERS[`score ${entry.key}`] = { label: `score, ${entry.label}`, value: own(table.scores[entry.key].score), show: (value) => `${atlas.number(value)} points` };
  }
  atlas.fill(element("colour"), [
    ["model", "base model"], ["dataset", "training set"], ["method", "method"],
    ...["epoch", "distance", "mean"].map((key) => [key, NUMBERS[key].label]),
    { group: "gain", entries: scored.map((entry) => [`gain ${entry.key}`, entry.label]) },
    { group: "score", entries: scored.map((entry) => [`score ${entry.key}`, entry.label]) },
  ]);
  atlas.fill(element("view"), map.views.map((view) => [view.key, `${view.label}${view.to_scale ? ", to scale" : ", not to scale"}`]));
  for (const key of ["model", "dataset", "method"])
    atlas.fill(element(key), [["", "all"], ...lists[key].filter((entry) => points[key].includes(entry.key)).map((entry) => [entry.key, entry.label])]);
  const wanted = new URLSearchParams(location.search);
  for (const key of ["colour", "view", "model", "dataset", "method"]) if (wanted.has(key) && [...element(key).options].some((each) => each.value === wanted.get(key))) element(key).value = wanted.get(key);
  element("about").textContent =
    `${atlas.whole(every.length)} checkpoints, ${atlas.whole(map.texts)} texts that all of them have${map.dropped ? `; ${atlas.whole(map.dropped)} other texts are left out` : ""}.`;

  // Base models stay where a training set or a method is chosen, so that there is something to compare with.
  const picked = (i) =>
    (!element("model").value || points.model[i] === element("model").value) &&
    ["dataset", "method"].every((key) => !element(key).value || points[key][i] === element(key).value || points.epoch[i] === 0);

  const SYMBOLS = { base: "star", full: "circle", lora: "triangle-up" };
  const FALLBACK = ["square", "diamond", "cross", "x", "pentagon"];
  const others = [...new Set(points.method)].filter((method) => !SYMBOLS[method]);
  const symbol = (i) => SYMBOLS[points.method[i]] ?? FALLBACK[others.indexOf(points.method[i]) % FALLBACK.length];
  const latest = Math.max(1, ...points.epoch);
  const size = (i) => (points.epoch[i] === 0 ? 15 : 6 + (6 * points.epoch[i]) / latest); // of a marker
  const hint = (i) => {
    const number = NUMBERS[element("colour").value];
    const value = number?.value(i);
    return [
      `<b>${atlas.plain(names.model(points.model[i]))}</b>`,
      atlas.plain(names.run(points.address[i])),
      `divergence from the base model ${atlas.figures(points.distance[i])} bits per byte`,
      ...(number && element("colour").value !== "distance" ? [`${atlas.plain(number.label)}: ${value === null || value === undefined ? "none" : number.show(value)}`] : []),
    ].join("<br>");
  };
  const open = (point) => (location.href = atlas.link(points.address[point.customdata]).href);
  const short = (text) => (text.length > 28 ? `${text.slice(0, 18)}…${text.slice(-9)}` : text);
  const edges = (rows) => ({ width: rows.map((i) => (points.epoch[i] === 0 ? 1.5 : 0.5)), color: rows.map((i) => atlas.css(points.epoch[i] === 0 ? "--ink" : "--paper")) });

  function draw() {
    const shown = every.filter(picked);
    const kind = element("colour").value;
    const number = NUMBERS[kind];
    const view = map.views.find((each) => each.key === element("view").value);
    element("scale-note").textContent = view.to_scale
      ? `${view.label}. Distances on the map are to scale as far as two axes can show them.`
      : `${view.label}. The map is not to scale: it shows which checkpoints are near each other, not how far apart groups are.`;
    const trace = (rows, marker, more = {}) => ({
      type: "scatter", mode: "markers", x: rows.map((i) => view.x[i]), y: rows.map((i) => view.y[i]), customdata: rows, hoverinfo: "text", hovertext: rows.map(hint),
      marker: { size: rows.map(size), symbol: rows.map(symbol), opacity: 0.85, line: edges(rows), ...marker }, ...more,
    });
    const groups = (key) => {
      const found = [...lists[key].map((entry) => entry.key), ...points[key]].filter((name, place, all) => all.indexOf(name) === place);
      return found.map((name) => [name, shown.filter((i) => points[key][i] === name)]).filter(([, rows]) => rows.length);
    };
    const colour = (key, name) => colours[key].get(name) ?? atlas.css("--soft");
    let traces;
    if (number) {
      const known = shown.filter((i) => number.value(i) !== null && number.value(i) !== undefined);
      const unknown = shown.filter((i) => !known.includes(i));
      const scale = number.limit ? { cmin: -number.limit, cmax: number.limit, colorscale: atlas.diverging() } : { colorscale: "Viridis" };
      const bar = { thickness: 12, len: 0.9, title: { text: atlas.plain(short(number.label)), side: "right" }, outlinewidth: 0 };
      traces = [trace(unknown, { color: atlas.css("--line") }), trace(known, { color: known.map(number.value), showscale: true, colorbar: bar, ...scale, line: { width: 0.8, color: atlas.css("--soft") } })];
    } else traces = groups(kind).map(([name, rows]) => trace(rows, { color: colour(kind, name) }, { name: atlas.plain(short(labels[kind](name))), showlegend: true }));
    const bare = { showgrid: false, zeroline: false, showticklabels: false, ticks: "", showline: true, mirror: true };
    const legend = { orientation: "h", y: -0.02, yanchor: "top", x: 0, itemsizing: "constant", font: { size: 11 } };
    const more = { height: 520, showlegend: !number, legend, xaxis: bare, yaxis: { ...bare, ...(view.to_scale ? { scaleanchor: "x" } : {}) } };
    atlas.chart(element("map"), traces, more, open);

    // One line per run, from its base model at 0.
    const by = number ? "model" : kind;
    const runs = new Map();
    for (const i of shown) {
      const run = `${points.model[i]}\n${points.dataset[i]}\n${points.recipe[i]}`;
      if (points.epoch[i] > 0) runs.set(run, [...(runs.get(run) ?? []), i]);
    }
    const named = new Set();
    const lines = [...runs.values()].map((rows) => {
      const ordered = [...rows].sort((a, b) => points.epoch[a] - points.epoch[b]);
      const name = points[by][ordered[0]];
      const first = !named.has(name);
      named.add(name);
      const ink = colour(by, name);
      return {
        type: "scatter", mode: "lines+markers", x: ordered.map((i) => points.epoch[i]), y: ordered.map((i) => points.distance[i]), customdata: ordered, hoverinfo: "text", hovertext: ordered.map(hint),
        line: { color: ink, width: 1 }, marker: { color: ink, size: 6, symbol: ordered.map(symbol) }, opacity: 0.8, name: atlas.plain(short(labels[by](name))), legendgroup: name, showlegend: first,
      };
    });
    atlas.chart(
      element("moved"),
      lines,
      { height: 520, showlegend: true, legend: { ...legend, y: -0.14 }, xaxis: { title: { text: "epoch" }, dtick: latest < 12 ? 1 : undefined, range: [0, latest + 0.3] }, yaxis: { title: { text: "divergence, bits per byte" }, rangemode: "tozero" } },
      open,
    );
  }

  const digits = (key) => ({ digits: 4, show: (i) => atlas.figures(points[key][i]) });
  const rows = atlas.table(
    element("table"),
    [
      { title: "Base model", value: (i) => names.model(points.model[i]), show: (i) => atlas.link(points.address[i], names.model(points.model[i])) },
      { title: "Training set", value: (i) => (points.dataset[i] === "base" ? "" : names.set(points.dataset[i])) },
      { title: "Recipe", value: (i) => names.recipe(points.recipe[i]) },
      { title: "Epoch", value: (i) => points.epoch[i], digits: 0 },
      { title: "From the base model", value: (i) => points.distance[i], ...digits("distance") },
      { title: "Nearest checkpoint", value: (i) => names.title(points.nearest[i]), show: (i) => atlas.link(points.nearest[i], names.title(points.nearest[i])) },
      { title: "From the nearest", value: (i) => points.nearest_distance[i], ...digits("nearest_distance") },
    ],
    every,
    { name: `${study.study}-divergences`, page: 25, filter: picked },
  );
  for (const key of ["colour", "view"]) element(key).addEventListener("change", draw);
  for (const key of ["model", "dataset", "method"])
    element(key).addEventListener("change", () => {
      draw();
      rows.draw();
    });
  draw();
});
