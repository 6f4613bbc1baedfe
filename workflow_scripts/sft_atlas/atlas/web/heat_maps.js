// A heat map per base model: training sets by benchmarks.
"use strict";

atlas.start(async () => {
  const [study, cells] = await Promise.all([atlas.data("study"), atlas.data("heat_maps")]);
  const models = atlas.byKey(study.models), datasets = atlas.byKey(study.datasets), benchmarks = atlas.byKey(study.benchmarks), recipes = atlas.byKey(study.recipes);
  const element = (name) => document.getElementById(name);
  const every = cells.model.map((_, i) => i);
  if (!every.length) {
    element("none").textContent = "This study has no gains: they need tuned checkpoints and the scores of their base models.";
    return;
  }
  const used = study.recipes.filter((entry) => cells.recipe.includes(entry.key));
  const option = (entry) => [entry.key, entry.label];
  const main = used.filter((entry) => cells.main.includes(entry.key));
  const other = used.filter((entry) => !cells.main.includes(entry.key));
  atlas.fill(element("recipe"), [{ group: "main recipe of each method", entries: main.map(option) }, ...(other.length ? [{ group: "other recipes", entries: other.map(option) }] : [])]);
  const groups = [...new Set(study.benchmarks.filter((entry) => cells.benchmark.includes(entry.key)).map((entry) => entry.group))];
  atlas.fill(element("group"), [["", "all"], ...groups.map((group) => [group, group])]);
  const wanted = new URLSearchParams(location.search);
  for (const key of ["recipe", "group"]) if (wanted.has(key)) element(key).value = wanted.get(key);
  element("low").textContent = atlas.number(-cells.limit, 0);
  element("high").textContent = atlas.signed(cells.limit, 0);

  const text = (list, key) => atlas.label(list, key);
  const sure = (i) => cells.q[i] !== null && cells.q[i] < 0.05;
  const hint = (i) =>
    [
      `<b>${atlas.plain(text(models, cells.model[i]))}</b>, ${atlas.plain(text(datasets, cells.dataset[i]))}`,
      atlas.plain(text(benchmarks, cells.benchmark[i])),
      `gain ${atlas.signed(cells.gain[i])} points ${atlas.interval(cells.low[i], cells.high[i])}`,
      `${atlas.q(cells.q[i]) || "no test"}, n = ${atlas.whole(cells.n[i])}, ${cells.seeds[i] === 1 ? "one seed" : `${cells.seeds[i]} seeds`}, epoch ${cells.epoch[i]}`,
    ].join("<br>");

  const picked = (i) => cells.recipe[i] === element("recipe").value && (!element("group").value || benchmarks.get(cells.benchmark[i])?.group === element("group").value);
  const short = (label) => (label.length > 26 ? `${label.slice(0, 17)}…${label.slice(-8)}` : label);

  // A map is drawn when it comes near the window: a study may have a dozen base models.
  const drawing = new WeakMap();
  const waiting = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries)
        if (isIntersecting) {
          waiting.unobserve(target);
          drawing.get(target)();
        }
    },
    { rootMargin: "300px" },
  );

  function draw() {
    const shown = every.filter(picked);
    const has = (list, key) => list.filter((entry) => shown.some((i) => cells[key][i] === entry.key));
    const columns = has(study.benchmarks, "benchmark");
    const at = new Map(shown.map((i) => [`${cells.model[i]}\n${cells.dataset[i]}\n${cells.benchmark[i]}`, i]));
    element("tested").textContent =
      `q is corrected (Benjamini-Hochberg, false discovery rate 5 %) over the ${atlas.whole(cells.sizes[0])} gains of single training sets with the main recipes, and apart from these over the ${atlas.whole(cells.sizes[1])} of all other runs.`;
    element("maps").replaceChildren();
    waiting.disconnect();
    for (const model of has(study.models, "model")) {
      const rows = has(study.datasets, "dataset").filter((row) => columns.some((column) => at.has(`${model.key}\n${row.key}\n${column.key}`)));
      const place = atlas.make("div", { class: "chart", role: "group", "aria-label": `Heat map of gains of ${model.label}; the table below has the numbers` });
      element("maps").append(atlas.make("section", {}, atlas.make("h3", {}, model.label), place));
      const index = rows.map((row) => columns.map((column) => at.get(`${model.key}\n${row.key}\n${column.key}`) ?? null));
      const grid = (value) => index.map((line) => line.map((i) => (i === null ? null : value(i))));
      const grey = element("significant").checked;
      const shared = { type: "heatmap", x: columns.map((_, i) => i), y: rows.map((_, i) => i), xgap: 1, ygap: 1, hoverinfo: "text", hovertext: grid(hint), showscale: false };
      const numbers = columns.length <= 12 ? { text: grid((i) => atlas.number(cells.gain[i], 0)), texttemplate: "%{text}" } : {};
      const traces = [{ ...shared, ...numbers, z: grid((i) => (grey && !sure(i) ? null : cells.gain[i])), zmin: -cells.limit, zmax: cells.limit, colorscale: atlas.diverging(), hoverongaps: false }];
      if (grey) traces.unshift({ ...shared, ...numbers, z: grid((i) => (sure(i) ? null : 1)), zmin: 0, zmax: 1, colorscale: [[0, atlas.css("--line")], [1, atlas.css("--line")]], hoverongaps: false });
      const ticks = (list) => ({ tickvals: list.map((_, i) => i), ticktext: list.map((entry) => atlas.plain(short(entry.label))), ticks: "", showgrid: false, zeroline: false, fixedrange: true, tickfont: { size: 11 } });
      const more = {
        height: 20 * rows.length + 150,
        xaxis: { ...ticks(columns), tickangle: columns.length > 4 ? -60 : 0 },
        yaxis: { ...ticks(rows), autorange: "reversed" },
      };
      place.style.height = `${more.height}px`;
      drawing.set(place, () =>
        atlas.chart(place, traces, more, (point) => {
          const [row, column] = point.pointIndex;
          if (index[row][column] !== null) location.href = atlas.link(cells.address[index[row][column]]).href;
        }),
      );
      waiting.observe(place);
    }
  }

  const table = atlas.table(
    element("table"),
    [
      { title: "Base model", value: (i) => text(models, cells.model[i]), show: (i) => atlas.link(cells.address[i], text(models, cells.model[i])) },
      { title: "Training set", value: (i) => text(datasets, cells.dataset[i]) },
      { title: "Recipe", value: (i) => text(recipes, cells.recipe[i]), hidden: true },
      { title: "Benchmark", value: (i) => text(benchmarks, cells.benchmark[i]) },
      { title: "Gain", value: (i) => cells.gain[i], digits: 1, show: (i) => atlas.signed(cells.gain[i]), shade: (i) => cells.gain[i] / cells.limit },
      { title: "Low", value: (i) => cells.low[i], digits: 1 },
      { title: "High", value: (i) => cells.high[i], digits: 1 },
      { title: "q", value: (i) => cells.q[i], digits: 3 },
      { title: "n", value: (i) => cells.n[i], digits: 0 },
      { title: "Seeds", value: (i) => cells.seeds[i], digits: 0 },
    ],
    every,
    { name: `${study.study}-gains`, page: 25, filter: picked },
  );
  for (const key of ["recipe", "group", "significant"])
    element(key).addEventListener("change", () => {
      draw();
      table.draw();
    });
  draw();
});
