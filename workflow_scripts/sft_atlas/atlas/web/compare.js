// Two checkpoints of a base model, or two recipes, named in the address: compare.html?first=ADDRESS&second=ADDRESS or
// compare.html?what=recipes&first=RECIPE&second=RECIPE
"use strict";

atlas.start(async () => {
  const [study, table, index] = await Promise.all([atlas.data("study"), atlas.data("checkpoints"), atlas.data("compare")]);
  const names = atlas.naming(study);
  const benchmarks = atlas.byKey(study.benchmarks), recipes = atlas.byKey(study.recipes), methods = atlas.byKey(study.methods);
  const element = (name) => document.getElementById(name);
  const make = atlas.make;
  const [what, model, first, second] = ["what", "model", "first", "second"].map(element);
  const INKS = ["#0072B2", "#D55E00"]; // first and second
  const modelOf = (address) => address.split("/")[0];
  const tested = study.models.filter((entry) => index.models[entry.key]);
  const recipePairs = index.recipes.first.map((key, i) => [key, index.recipes.second[i]]);
  const comparable = study.recipes.filter((entry) => recipePairs.flat().includes(entry.key));
  const wanted = new URLSearchParams(location.search);
  if (wanted.get("what") === "recipes" || !tested.length) what.value = "recipes";
  atlas.fill(model, tested.map((entry) => [entry.key, entry.label]));
  const asked = wanted.get("first") && what.value === "checkpoints" ? modelOf(wanted.get("first")) : wanted.get("model");
  if (index.models[asked]) model.value = asked;

  let pairs = null; // those of the base model
  async function offer(one, other) {
    const byCheckpoint = what.value === "checkpoints";
    model.closest(".field").hidden = !byCheckpoint || !tested.length;
    let entries = [];
    if (byCheckpoint && tested.length) {
      pairs = await atlas.data(`compare/${index.models[model.value].number}`);
      entries = pairs.checkpoints.map((address) => [address, names.run(address)]);
    } else if (!byCheckpoint) entries = comparable.map((entry) => [entry.key, entry.label]);
    const keys = entries.map(([key]) => key);
    const tuned = byCheckpoint ? keys.filter((key) => key.split("/")[1] !== "base") : keys;
    atlas.fill(first, entries, keys.includes(one) ? one : tuned[0]);
    atlas.fill(second, entries, keys.includes(other) ? other : tuned.find((key) => key !== first.value) ?? keys[0]);
  }

  // The rows of a pair. A pair is tested in one direction; in the other its differences have the other sign.
  function found(list, one, other) {
    const rows = (a, b) => list.first.map((_, i) => i).filter((i) => list.first[i] === a && list.second[i] === b);
    const straight = rows(one, other);
    const flip = straight.length ? 1 : -1;
    const signed = (value) => (value === null ? null : flip * value);
    return (straight.length ? straight : rows(other, one)).map((i) => {
      const at = Object.fromEntries(Object.entries(list).filter(([key]) => key !== "checkpoints").map(([key, values]) => [key, values[i]]));
      if (flip === 1) return at;
      const { low, high, better, worse, up, down, score_first, score_second } = at;
      return { ...at, difference: signed(at.difference), low: signed(high), high: signed(low), better: worse, worse: better, up: down, down: up, score_first: score_second, score_second: score_first };
    });
  }

  function drawDifferences(rows) {
    const known = rows.filter((row) => row.difference !== null);
    const label = (row) => (row.benchmark === "all" ? "mean of all" : atlas.label(benchmarks, row.benchmark));
    const end = (row, key) => (row[key] === null ? 0 : Math.abs(row[key] - row.difference));
    atlas.chart(
      element("differences"),
      [{
        type: "scatter", mode: "markers", x: known.map((row) => row.difference), y: known.map((_, i) => i), hoverinfo: "text",
        hovertext: known.map((row) => `${atlas.plain(label(row))}<br>${atlas.signed(row.difference)} points ${atlas.interval(row.low, row.high)}`),
        error_x: { type: "data", symmetric: false, array: known.map((row) => end(row, "high")), arrayminus: known.map((row) => end(row, "low")), color: atlas.css("--soft"), thickness: 1.2, width: 3 },
        marker: { size: 8, color: known.map((row) => atlas.css(row.difference > 0 ? "--up" : row.difference < 0 ? "--down" : "--soft")) },
      }],
      {
        height: 24 * known.length + 90,
        xaxis: { title: { text: "difference, percentage points" }, zeroline: true },
        yaxis: { tickvals: known.map((_, i) => i), ticktext: known.map((row) => atlas.plain(short(label(row)))), autorange: "reversed", showgrid: false, zeroline: false, fixedrange: true },
      },
    );
  }
  const units = (row) => `${row.n} ${row.n === 1 ? row.unit.replace(/s$/, "") : row.unit}`;
  const short = (text) => (text.length > 26 ? `${text.slice(0, 17)}…${text.slice(-8)}` : text);

  let shown = null;
  function drawTable(rows, columns) {
    if (shown) shown.destroy();
    element("scores").replaceChildren();
    const difference = {
      title: "Difference", value: (row) => row.difference, digits: 1, extra: { low: (row) => row.low, high: (row) => row.high },
      show: (row) => (row.difference === null ? "–" : row.better === 0 && row.worse === 0 ? "0.0, no item differs" : `${atlas.signed(row.difference)} ${atlas.interval(row.low, row.high)}`),
    };
    const name = { title: "Benchmark", value: (row) => (row.benchmark === "all" ? "mean of all" : atlas.label(benchmarks, row.benchmark)) };
    shown = atlas.table(element("scores"), [name, ...columns(difference)], rows, { name: `${study.study}-comparison`, search: false, paging: false });
  }

  function drawLayers(series, note) {
    const some = series.filter(({ x }) => x.length);
    element("layers-part").hidden = !some.length;
    if (!some.length) return;
    element("layers-note").textContent = note;
    atlas.chart(
      element("layers"),
      some.map(({ x, y, name, ink, dash, hover }) => ({ type: "scatter", mode: "lines+markers", x, y, name: atlas.plain(name), line: { color: ink, width: 2, dash }, marker: { size: 5 }, hovertemplate: hover ?? "%{y:.3g}<extra>%{fullData.name}</extra>" })),
      { height: 360, showlegend: true, legend: { orientation: "h", y: -0.2, yanchor: "top", x: 0 }, xaxis: { title: { text: "depth, 0 first layer, 1 last" }, range: [-0.02, 1.02] }, yaxis: { title: { text: "relative change" }, rangemode: "tozero" } },
    );
  }

  function drawFacts(head, lines) {
    const cell = (value) => make("td", {}, value instanceof Node ? value : value === null || value === undefined ? "–" : String(value));
    const body = lines.filter(([, a, b]) => [a, b].some((value) => value !== null && value !== undefined)).map(([name, a, b]) => make("tr", {}, make("th", { scope: "row" }, name), cell(a), cell(b)));
    element("facts").replaceChildren(
      make("caption", { class: "note" }, "What they are"),
      make("thead", {}, make("tr", {}, make("td", {}), ...head.map((name) => make("th", { scope: "col" }, name)))),
      make("tbody", {}, ...body),
    );
  }

  async function checkpoints() {
    const [one, other] = [first.value, second.value];
    const all = { ...pairs, first: pairs.first.map((place) => pairs.checkpoints[place]), second: pairs.second.map((place) => pairs.checkpoints[place]) };
    const rows = found(all, one, other);
    if (!rows.length) {
      element("none").textContent = one === other ? "Choose two different checkpoints." : "This pair is not among those that were tested; see below which are.";
      return false;
    }
    const places = [one, other].map((address) => table.address.indexOf(address));
    const at = (key, show = (value) => value) => places.map((i) => (table[key]?.[i] === null || table[key]?.[i] === undefined ? null : show(table[key][i])));
    drawFacts(["First", "Second"], [
      ["checkpoint", atlas.link(one, names.run(one)), atlas.link(other, names.run(other))],
      ["training set", ...at("dataset", names.set)],
      ["method", ...at("method", (key) => atlas.label(methods, key))],
      ["rows", ...at("rows", atlas.whole)],
      ["schedule", ...at("schedule")],
      ["epoch", ...at("epoch")],
      ["seed", ...at("seed")],
      ["mean gain, points", ...at("mean_gain", (value) => atlas.signed(value))],
      ["perplexity of the training set", ...at("perplexity", atlas.figures)],
      ["relative change of all weights", ...at("weight_change", atlas.figures)],
    ]);
    element("how").textContent =
      "Item by item, over the items that both have a score for, in percentage points, with 95 % intervals; standard errors are over items, or over clusters of items where a benchmark has them. " +
      "q is corrected (Benjamini-Hochberg) over the benchmarks of this pair. Whoever looks at many pairs finds some by chance.";
    drawDifferences(rows);
    const answers = (row, filter, count) => {
      const link = make("a", { href: `answers.html?${new URLSearchParams({ model: modelOf(one), benchmark: row.benchmark, first: one, second: other, filter })}` }, atlas.whole(count));
      link.setAttribute("aria-label", `${atlas.whole(count)} items, ${filter === "first-second" ? "second better" : "second worse"}: read the answers`);
      return link;
    };
    // The base model is a side of its own on the page of answers.
    const sides = (better) => {
      const [a, b] = [one, other].map((address, i) => (address.split("/")[1] === "base" ? "base" : ["first", "second"][i]));
      return better ? `${a}-${b}` : `${b}-${a}`;
    };
    drawTable(rows, (difference) => [
      { title: "First", value: (row) => row.score_first, digits: 1 },
      { title: "Second", value: (row) => row.score_second, digits: 1 },
      difference,
      { title: "q", value: (row) => row.q, digits: 3, show: (row) => atlas.q(row.q) || "–" },
      { title: "n", value: (row) => row.n, digits: 0, show: (row) => atlas.whole(row.n) },
      { title: "Items better", value: (row) => row.better, digits: 0, show: (row) => answers(row, sides(true), row.better) },
      { title: "Items worse", value: (row) => row.worse, digits: 0, show: (row) => answers(row, sides(false), row.worse) },
    ]);
    const loaded = await Promise.all(places.map((i) => atlas.data(`checkpoint/${i}`)));
    drawLayers(
      loaded.map((own, i) => {
        const layers = own.layers ?? { component: [], depth: [], relative_change: [] };
        const whole = layers.component.map((_, k) => k).filter((k) => layers.component[k] === "all");
        return { x: whole.map((k) => layers.depth[k]), y: whole.map((k) => layers.relative_change[k]), name: `${["First", "Second"][i]}: ${names.run([one, other][i])}`, ink: INKS[i], dash: i ? "dash" : "solid" };
      }),
      "Frobenius norm of the change of each layer's weights relative to that of the base model's weights.",
    );
    return true;
  }

  function ofRecipes() {
    const [one, other] = [first.value, second.value];
    const rows = found(index.recipes, one, other);
    if (!rows.length) {
      element("none").textContent = one === other && one ? "Choose two different recipes." : "No two recipes have scores with the same base model and training set.";
      if (one !== other) element("none").textContent = "These recipes have no base model and training set in common.";
      if (!comparable.length) element("none").textContent = "This study has no two recipes with scores of the same base model and training set.";
      return false;
    }
    drawFacts(["First", "Second"], [
      ["recipe", ...[one, other].map((key) => recipes.get(key)?.label ?? key)],
      ["method", ...[one, other].map((key) => atlas.label(methods, recipes.get(key)?.method))],
    ]);
    const all = rows[0];
    element("how").textContent =
      `Last checkpoints of the same base model and training set, means over seeds, in percentage points. Independent units: ${units(all)}. ` +
      (all.interval === "none" ? "That is too few for intervals. " : `95 % intervals: ${all.interval}. `) +
      "p by flipping signs of units, none where they are too few for a p below 0.05; q is corrected (Benjamini-Hochberg) over the benchmarks, apart from their mean.";
    drawDifferences(rows);
    drawTable(rows, (difference) => [
      difference,
      { title: "p", value: (row) => row.p, digits: 3 },
      { title: "q", value: (row) => row.q, digits: 3 },
      { title: "Pairs of runs", value: (row) => row.runs, digits: 0 },
      { title: "Second better", value: (row) => row.up, digits: 0 },
      { title: "Second worse", value: (row) => row.down, digits: 0 },
      { title: "Units", value: units },
    ]);
    const layers = index.layers, series = [];
    for (const entry of study.models)
      [one, other].forEach((key, i) => {
        const own = (layers.model ?? []).map((_, k) => k).filter((k) => layers.model[k] === entry.key && layers.recipe[k] === key);
        if (own.length) series.push({ x: own.map((k) => layers.depth[k]), y: own.map((k) => layers.relative_change[k]), name: `${recipes.get(key)?.label ?? key}, ${entry.label}, ${layers.runs[own[0]] === 1 ? "one run" : `mean of ${layers.runs[own[0]]} runs`}`, ink: atlas.colour(entry.colour), dash: i ? "dash" : "solid" });
      });
    drawLayers(series, "Relative change of each layer's weights, mean over the runs on single training sets. Solid: first recipe; dashed: second. Colours are base models.");
    return true;
  }

  async function show() {
    element("none").textContent = "";
    element("shown").hidden = true;
    element("bounds").textContent = "";
    if (what.value === "checkpoints" && !tested.length) {
      element("none").textContent = "There are no items to compare: results/{study}/runs/.../samples/ has no files. They are written when checkpoints are evaluated.";
      return;
    }
    element("shown").hidden = false; // charts need a width
    const there = what.value === "checkpoints" ? await checkpoints() : ofRecipes();
    element("shown").hidden = !there;
    if (what.value === "checkpoints") {
      const own = index.models[model.value];
      element("bounds").textContent =
        `${atlas.whole(own.tested)} pairs of checkpoints of this base model are tested: the base model with every checkpoint, the last checkpoints of all runs with one another, and the checkpoints of each run with one another.` +
        (own.over_limit ? ` ${atlas.whole(own.over_limit)} more of these are left out, because an atlas has ${atlas.whole(index.limit)} pairs per base model at most.` : "") +
        (own.never ? ` ${atlas.whole(own.never)} pairs of an earlier checkpoint with one of another run are not tested.` : "") +
        " Checkpoints of different base models are not compared here, because their base scores differ.";
    }
    history.replaceState(null, "", `?${new URLSearchParams({ what: what.value, first: first.value, second: second.value })}`);
  }

  const update = () => show().catch((error) => element("problems").append(make("p", { class: "problem" }, error.message)));
  for (const select of [what, model])
    select.addEventListener("change", async () => {
      await offer();
      update();
    });
  for (const select of [first, second]) select.addEventListener("change", update);
  await offer(wanted.get("first"), wanted.get("second"));
  await show();
});
