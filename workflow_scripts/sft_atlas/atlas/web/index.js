// The findings are in the page already; their matrices and scatter plots are drawn when they come near the window.
"use strict";

atlas.start(async () => {
  const study = await atlas.data("study");
  const models = atlas.byKey(study.models);
  const lines = (text) => atlas.plain(text).replaceAll("\n", "<br>");
  const short = (label) => (label.length > 26 ? `${label.slice(0, 17)}…${label.slice(-8)}` : label);
  const ticks = (labels) => ({ tickvals: labels.map((_, i) => i), ticktext: labels.map((label) => atlas.plain(short(label))), ticks: "", showgrid: false, zeroline: false, fixedrange: true, tickfont: { size: 11 } });

  function matrix(place, panel) {
    const shared = { type: "heatmap", x: panel.columns.map((_, i) => i), y: panel.rows.map((_, i) => i), xgap: 1, ygap: 1, hoverinfo: "text", hovertext: panel.hints.map((row) => row.map(lines)), showscale: false, hoverongaps: false };
    const grid = (value) => panel.values.map((row, i) => row.map((cell, j) => (cell === null ? null : value(cell, panel.muted[i][j]))));
    const digits = panel.limit <= 1 ? 2 : 0;
    const text = panel.columns.length <= 12 ? { text: grid((cell) => atlas.number(cell, digits)), texttemplate: "%{text}", textfont: { size: 10 } } : {};
    const line = atlas.css("--line");
    const traces = [
      { ...shared, ...text, z: grid((_, muted) => (muted ? 1 : null)), zmin: 0, zmax: 1, colorscale: [[0, line], [1, line]] },
      { ...shared, ...text, z: grid((cell, muted) => (muted ? null : cell)), zmin: -panel.limit, zmax: panel.limit, colorscale: atlas.diverging() },
    ];
    atlas.chart(place, traces, { height: 20 * panel.rows.length + 150, xaxis: { ...ticks(panel.columns), tickangle: panel.columns.length > 4 ? -60 : 0 }, yaxis: { ...ticks(panel.rows), autorange: "reversed" } });
  }

  function scatter(place, panel) {
    const names = [...new Set(panel.models)];
    const traces = names.map((name) => {
      const rows = panel.models.map((_, i) => i).filter((i) => panel.models[i] === name);
      const at = (key) => rows.map((i) => panel[key][i]);
      return { type: "scatter", mode: "markers", name: atlas.plain(atlas.label(models, name)), x: at("x"), y: at("y"), customdata: at("addresses"), hoverinfo: "text", hovertext: at("hints").map(lines), marker: { color: atlas.colour(models.get(name).colour), size: 7, opacity: 0.8 } };
    });
    if (panel.equal) {
      const ends = [Math.min(...panel.x, ...panel.y), Math.max(...panel.x, ...panel.y)];
      traces.push({ type: "scatter", mode: "lines", x: ends, y: ends, name: "equal", hoverinfo: "skip", line: { color: atlas.css("--soft"), dash: "dot", width: 1 } });
    }
    const more = { height: 440, showlegend: true, legend: { orientation: "h", y: -0.18, yanchor: "top" }, xaxis: { title: { text: panel.x_title }, type: panel.log ? "log" : "linear" }, yaxis: { title: { text: panel.y_title } } };
    atlas.chart(place, traces, more, (point) => {
      if (point.customdata) location.href = atlas.link(point.customdata).href;
    });
  }

  async function draw(target) {
    const panels = await atlas.data(`chart/${target.dataset.chart}`);
    for (const panel of panels) {
      const place = atlas.make("div", { class: "chart", role: "group", "aria-label": panel.title });
      target.append(atlas.make("section", {}, atlas.make("h3", {}, panel.title), place));
      (panel.kind === "matrix" ? matrix : scatter)(place, panel);
    }
  }
  const waiting = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries)
        if (isIntersecting) {
          waiting.unobserve(target);
          draw(target).catch((error) => target.append(atlas.make("p", { class: "problem" }, error.message)));
        }
    },
    { rootMargin: "300px" },
  );
  document.querySelectorAll("[data-chart]").forEach((target) => waiting.observe(target));
});
