// One tidy table at a time.
"use strict";

atlas.start(async () => {
  const [study, tables] = await Promise.all([atlas.data("study"), atlas.data("tables")]);
  const element = (name) => document.getElementById(name);
  atlas.fill(element("name"), tables.map((table) => [table.key, table.key]));
  const wanted = decodeURIComponent(location.hash.slice(1));
  if (tables.some((table) => table.key === wanted)) element("name").value = wanted;

  async function show() {
    const entry = tables.find((table) => table.key === element("name").value);
    history.replaceState(null, "", `#${entry.key}`);
    element("place").replaceChildren();
    element("said").textContent = `${atlas.whole(entry.rows)} rows, ${entry.columns} columns: tables/${entry.key}.parquet.${entry.shown ? "" : " It is too large for a page; read the file."}`;
    if (!entry.shown) return;
    const table = await atlas.data(`table/${entry.key}`);
    if (entry.key !== element("name").value) return;
    const names = Object.keys(table), rows = table[names[0]].map((_, i) => i);
    const columns = names.map((name) => {
      const numeric = table[name].every((value) => value === null || typeof value === "number") && table[name].some((value) => value !== null);
      const whole = numeric && table[name].every((value) => value === null || Number.isInteger(value));
      const value = (i) => (typeof table[name][i] === "boolean" ? String(table[name][i]) : table[name][i]);
      return { title: name, value, ...(numeric ? { digits: 0, show: (i) => (whole ? value(i) ?? "–" : value(i) === null ? "–" : String(Number(value(i).toPrecision(5)))) } : {}) };
    });
    const made = document.createElement("table");
    made.id = "table";
    made.className = "compact";
    made.setAttribute("aria-label", `Table ${entry.key}`);
    element("place").append(made);
    atlas.table(made, columns, rows, { name: `${study.study}-${entry.key}` });
  }
  element("name").addEventListener("change", show);
  await show();
});
