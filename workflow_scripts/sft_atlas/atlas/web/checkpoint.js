// One checkpoint, named in the address: checkpoint.html#model/dataset/recipe/epoch
"use strict";

atlas.start(async () => {
  const [study, addresses] = await Promise.all([atlas.data("study"), atlas.data("addresses")]);
  const models = atlas.byKey(study.models);
  const benchmarks = atlas.byKey(study.benchmarks), methods = atlas.byKey(study.methods);
  const element = (name) => document.getElementById(name);
  const make = atlas.make;
  const split = addresses.map((address) => address.split("/"));
  const { model: modelName, set, recipe, title } = atlas.naming(study);
  const names = [modelName, set, recipe, (key) => key];

  const choices = ["model", "dataset", "run", "epoch"].map(element);
  // Offer what there is below the choices so far, and keep what was chosen where it still exists.
  function offer(parts) {
    let left = split;
    choices.forEach((select, level) => {
      const there = [...new Set(left.map((each) => each[level]))];
      const chosen = there.includes(parts[level]) ? parts[level] : there[0];
      atlas.fill(select, there.map((key) => [key, names[level](key)]), chosen);
      left = left.filter((each) => each[level] === chosen);
    });
    return left[0].join("/");
  }
  for (const select of choices)
    select.addEventListener("change", () => {
      location.hash = encodeURI(offer(choices.map((each) => each.value)));
    });

  const facts = (list) => list.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]);
  const part = (name, content, fill) => {
    element(`${name}-part`).hidden = !content;
    if (content) fill(content);
  };

  function drawGains(scores) {
    const rows = scores.benchmark.map((_, i) => i).filter((i) => scores.gain[i] !== null);
    element("gains").hidden = !rows.length;
    if (!rows.length) return;
    const label = (i) => atlas.plain(atlas.label(benchmarks, scores.benchmark[i]));
    const at = (key) => rows.map((i) => scores[key][i]);
    atlas.chart(
      element("gains"),
      [
        {
          type: "scatter", mode: "markers", x: at("gain"), y: rows.map((_, place) => place), hoverinfo: "text",
          error_x: { type: "data", symmetric: false, array: rows.map((i) => (scores.high[i] === null ? 0 : scores.high[i] - scores.gain[i])), arrayminus: rows.map((i) => (scores.low[i] === null ? 0 : scores.gain[i] - scores.low[i])), color: atlas.css("--soft"), thickness: 1.2, width: 0 },
          marker: { size: 8, color: rows.map((i) => (scores.q[i] !== null && scores.q[i] < 0.05 ? atlas.css(scores.gain[i] > 0 ? "--up" : "--down") : atlas.css("--paper"))), line: { width: 1.2, color: atlas.css("--ink") } },
          hovertext: rows.map((i) => `${label(i)}<br>gain ${atlas.gain({ gain: scores.gain[i], low: scores.low[i], high: scores.high[i], q: scores.q[i] })}<br>n = ${atlas.whole(scores.pairs[i])}`),
        },
      ],
      {
        height: 24 * rows.length + 60,
        xaxis: { title: { text: "gain, percentage points (filled: q < 0.05)" }, zeroline: true },
        yaxis: { tickvals: rows.map((_, place) => place), ticktext: rows.map(label), autorange: "reversed", showgrid: false, zeroline: false },
      },
    );
  }

  let table = null;
  function drawScores(scores) {
    if (table) table.destroy();
    element("scores").replaceChildren();
    const rows = scores.benchmark.map((_, i) => i);
    const pair = (value, error) => (i) => (scores[value][i] === null ? "–" : `${atlas.number(scores[value][i])} ± ${atlas.number(scores[error][i])}`);
    const optional = (key, name, more = {}) => (scores[key]?.some((value) => value !== null) ? [{ title: name, value: (i) => scores[key][i], ...more }] : []);
    table = atlas.table(
      element("scores"),
      [
        { title: "Benchmark", value: (i) => atlas.label(benchmarks, scores.benchmark[i]) },
        { title: "Score", value: (i) => scores.score[i], digits: 1, show: pair("score", "stderr"), extra: { stderr: (i) => scores.stderr[i] } },
        { title: "Base model", value: (i) => scores.base_score[i], digits: 1, show: pair("base_score", "base_stderr"), extra: { stderr: (i) => scores.base_stderr[i] } },
        {
          title: "Gain", value: (i) => scores.gain[i], digits: 1, extra: { low: (i) => scores.low[i], high: (i) => scores.high[i] },
          show: (i) => (scores.gain[i] === null ? "–" : `${atlas.signed(scores.gain[i])} ${atlas.interval(scores.low[i], scores.high[i])}`),
        },
        { title: "q", value: (i) => scores.q[i], digits: 3, show: (i) => atlas.q(scores.q[i]) || "–" },
        { title: "n", value: (i) => scores.n[i], digits: 0, show: (i) => atlas.whole(scores.n[i]) },
        ...optional("n_parsed", "Parsed", { digits: 0 }),
        ...optional("n_truncated", "Truncated", { digits: 0 }),
        ...optional("n_missing", "Without score", { digits: 0 }),
        ...optional("metric", "Metric"),
        ...optional("shots", "Shots", { digits: 0 }),
        ...optional("backend", "Backend"),
        ...optional("scale", "Scale", { digits: 0, show: (i) => `0 to ${atlas.figures(scores.scale[i])}` }),
        ...optional("judge", "Judge"),
        { title: "Chance", value: (i) => benchmarks.get(scores.benchmark[i])?.chance, digits: 0, hidden: true },
      ],
      rows,
      { name: `${study.study}-scores`, search: false, paging: false },
    );
  }

  const line = (x, y, name, colour, more = {}) => ({ type: "scatter", mode: "lines", x, y, name: atlas.plain(name), line: { color: colour, width: 1.6 }, ...more });
  const legend = { showlegend: true, legend: { orientation: "h", y: -0.22, x: 0, yanchor: "top" } };

  function drawHistory(history) {
    const held = history.step.map((_, i) => i).filter((i) => history.validation_loss?.[i] !== null && history.validation_loss?.[i] !== undefined);
    const traces = [line(history.step, history.loss, "training", atlas.css("--link"), { connectgaps: true })];
    if (held.length) traces.push(line(held.map((i) => history.step[i]), held.map((i) => history.validation_loss[i]), "validation, held-out rows", atlas.css("--up"), { mode: "lines+markers" }));
    atlas.chart(element("history"), traces, { ...legend, xaxis: { title: { text: "optimiser step" } }, yaxis: { title: { text: "loss, nats per token" }, rangemode: "tozero" } });
  }

  const INKS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#882255", "#44AA99", "#999933", "#AA4499"];
  function drawLayers(layers) {
    const names = [...new Set(layers.component)];
    const traces = names.map((name, place) => {
      const rows = layers.component.map((_, i) => i).filter((i) => layers.component[i] === name);
      const own = line(rows.map((i) => layers.layer[i]), rows.map((i) => layers.relative_change[i]), name === "all" ? "whole layer" : name, name === "all" ? atlas.css("--ink") : INKS[place % INKS.length], { mode: "lines+markers" });
      return { ...own, line: { ...own.line, width: name === "all" ? 2.5 : 1 }, marker: { size: 4 } };
    });
    atlas.chart(element("layers"), traces, { ...legend, height: 380, xaxis: { title: { text: "layer" }, dtick: layers.layer.length < 40 ? 1 : undefined }, yaxis: { title: { text: "relative change" }, rangemode: "tozero" } });
  }

  function folded(name, content) {
    return make("details", {}, make("summary", {}, make("h2", {}, name)), content);
  }

  async function show() {
    const wanted = decodeURIComponent(location.hash.slice(1));
    const number = addresses.indexOf(wanted);
    element("none").textContent = wanted && number < 0 ? `There is no checkpoint ${wanted} in this atlas; choose one above.` : "";
    if (number < 0) {
      const first = offer(wanted ? wanted.split("/") : (addresses.find((address) => !address.includes("/base/base/")) ?? addresses[0]).split("/"));
      element("shown").hidden = true;
      if (!wanted) history.replaceState(null, "", `#${encodeURI(first)}`), await show();
      return;
    }
    offer(wanted.split("/"));
    const own = await atlas.data(`checkpoint/${number}`);
    element("shown").hidden = false;
    document.querySelector("h1").textContent = title(own.address);
    document.title = `${title(own.address)} – ${study.study}`;
    const link = (address) => atlas.link(address, title(address));
    const model = models.get(own.model);
    const list = [
      ["base model", own.base && own.base !== own.address ? link(own.base) : atlas.label(models, own.model)],
      ["family, language", [model?.family, model?.language].filter(Boolean).join(", ") || "unknown"],
    ];
    if (own.dataset !== "base")
      list.push(
        ["training set", set(own.dataset)],
        ["method", atlas.label(methods, own.method)],
        ["recipe", recipe(own.folder)],
        ["rows", own.rows === null ? "unknown" : atlas.whole(own.rows)],
        ["schedule", own.schedule ?? "unknown"],
        ["seed", own.seed === null ? "unknown" : String(own.seed)],
        own.outside ? ["epochs", own.outside.epochs === null ? "unknown" : atlas.whole(own.outside.epochs)] : ["epochs kept", make("span", {}, ...own.epochs.flatMap((address, i) => [i ? ", " : "", address === own.address ? address.split("/")[3] : atlas.link(address, address.split("/")[3])]))],
        ["mean gain", own.mean_gain === null ? "not every benchmark has a gain" : `${atlas.signed(own.mean_gain)} ± ${atlas.number(own.mean_gain_stderr)} points`],
      );
    if (own.outside) list.push(["trained elsewhere, taken from", own.outside.hub ? `${own.outside.hub} at ${own.outside.revision}` : own.outside.path]);
    if (own.weight_change !== null && own.weight_change !== undefined) list.push(["relative change of all weights", atlas.figures(own.weight_change)]);
    if (own.dtype) list.push(["trained in, on", `${own.dtype}, ${own.device}`]);
    if (own.perplexity !== null && own.perplexity !== undefined) list.push(["perplexity of its training set under the base model", atlas.figures(own.perplexity)]);
    element("facts").replaceChildren(...facts(list));
    element("remarks").replaceChildren(...own.remarks.map((text) => make("li", {}, text)));
    for (const page of element("links").querySelectorAll("a")) page.search = new URLSearchParams({ model: own.model, first: own.address });
    element("unscored").textContent = own.scores && own.scores.score.some((value) => value !== null) ? "" : "This checkpoint has no scores.";
    element("gains").hidden = !own.scores;
    if (own.scores) drawGains(own.scores), drawScores(own.scores);
    part("history", own.history, drawHistory);
    part("layers", own.layers, drawLayers);
    part("nearest", own.nearest, (near) => element("nearest").replaceChildren(...near.map(([address, distance]) => make("li", {}, link(address), ` ${atlas.figures(distance)}`))));
    part("samples", own.preflight, ({ head, samples }) => {
      element("preflight").textContent = head;
      const sample = ([name, parts]) => [make("h3", {}, name), make("pre", { tabindex: "0" }, ...parts.map(([text, loss]) => (loss ? make("mark", {}, text) : text)))];
      element("samples").replaceChildren(...samples.flatMap(sample));
    });
    part("command", own.command, (text) => (element("command").textContent = text));
    const card = make("div", {});
    if (own.card) card.innerHTML = own.card; // made by markdown-it from Markdown in which HTML counts as text
    const lists = { Settings: own.settings, "How it was trained": own.training, Provenance: own.provenance };
    element("more").replaceChildren(
      ...Object.entries(lists).filter(([, values]) => values?.length).map(([name, values]) => folded(name, make("dl", { class: "facts" }, ...facts(values)))),
      ...(own.card ? [folded("Model card", card)] : []),
    );
  }
  addEventListener("hashchange", () => show().catch((error) => element("problems").append(make("p", { class: "problem" }, error.message))));
  await show();
});
