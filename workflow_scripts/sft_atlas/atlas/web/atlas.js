// What every page uses: data that are loaded when they are needed, numbers as text, tables, and charts. No number is computed here.
"use strict";

const atlas = (() => {
  const arrived = new Map(); // name -> the promise of its data, with the function that settles it

  // ---------------------------------------------------------------- data

  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }

  // The promise of data/{name}.js, which is loaded once.
  function data(name) {
    if (!arrived.has(name)) {
      const entry = {};
      entry.promise = new Promise((resolve, reject) => Object.assign(entry, { resolve, reject }));
      arrived.set(name, entry);
      const script = document.createElement("script");
      script.src = `data/${name.split("/").map(encodeURIComponent).join("/")}.js`;
      script.onerror = () => entry.reject(new Error(`${decodeURIComponent(script.src)} cannot be read; write the atlas again: snakemake atlas`));
      document.head.append(script);
    }
    return arrived.get(name).promise;
  }

  // Called by the files of data.
  function put(name, text) {
    unpack(text).then(arrived.get(name).resolve, arrived.get(name).reject);
  }

  // Run the main function of a page and show its error, if any, on the page.
  function start(main) {
    document.documentElement.classList.toggle("dark", dark.matches);
    main().then(
      () => document.body.setAttribute("data-ready", ""),
      (error) => {
        document.getElementById("problems").append(make("p", { class: "problem" }, error.message));
        throw error;
      },
    );
  }

  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", () => location.reload());

  // ---------------------------------------------------------------- elements and text

  // An element; what is not an element becomes text, never markup.
  function make(name, attributes = {}, ...children) {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== undefined) element.setAttribute(key, value);
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  const MISSING = "–";
  const number = (value, digits = 1) => (value === null || value === undefined ? MISSING : value.toFixed(digits).replace("-", "−"));
  const signed = (value, digits = 1) => (value > 0 ? "+" : "") + number(value, digits);
  const whole = (value) => (value === null || value === undefined ? MISSING : value.toLocaleString("en"));
  const figures = (value) => (value === null || value === undefined ? MISSING : String(Number(value.toPrecision(3))));
  const q = (value) => (value === null || value === undefined ? "" : value < 0.001 ? "q < 0.001" : `q = ${value.toPrecision(2)}`);
  const interval = (low, high) => (low === null || low === undefined ? "no interval" : `[${number(low)} to ${number(high)}]`);
  const gain = (entry) => (entry.gain === null ? "no gain" : `${signed(entry.gain)} points ${interval(entry.low, entry.high)}, ${q(entry.q) || "no test"}`);

  const byKey = (list) => new Map(list.map((entry) => [entry.key, entry]));
  const label = (map, key) => map.get(key)?.label ?? key;
  const colour = (value) => (dark.matches && value === "#000000" ? "#dddddd" : value);
  const link = (address, text) => make("a", { href: `checkpoint.html#${encodeURI(address).replaceAll("#", "%23")}` }, text ?? address);

  // How checkpoints are called: model(key), set(key), recipe(folder), run(address) without and title(address) with the base model.
  function naming(study) {
    const models = byKey(study.models), datasets = byKey(study.datasets);
    const model = (key) => label(models, key);
    const set = (key) => (key === "base" ? "none (base model)" : label(datasets, key));
    const recipe = (folder) => {
      const known = study.recipes.find((entry) => folder === entry.key || folder.startsWith(`${entry.key}-seed-`));
      return folder === "base" ? "base model" : known ? known.label + folder.slice(known.key.length).replace("-seed-", ", seed ") : folder;
    };
    const run = (address) => {
      const [, dataset, folder, epoch] = address.split("/");
      return dataset === "base" ? "base model" : `${set(dataset)}, ${recipe(folder)}, ${study.outside?.includes(folder) ? "trained elsewhere" : `epoch ${epoch}`}`;
    };
    const title = (address) => `${model(address.split("/")[0])}${address.split("/")[1] === "base" ? "," : " +"} ${run(address)}`;
    return { model, set, recipe, run, title };
  }

  // Entries of a choice: [value, text] or {group: [...]}
  function fill(select, entries, chosen) {
    const option = ([value, text]) => make("option", { value, selected: value === chosen ? "" : null }, text);
    select.replaceChildren(...entries.map((entry) => (Array.isArray(entry) ? option(entry) : make("optgroup", { label: entry.group }, ...entry.entries.map(option)))));
    return select;
  }

  // ---------------------------------------------------------------- tables (DataTables)

  // Columns: title, value(row) and, where they apply: number (digits), show(row) -> text or element, sort, hidden, hint(row), shade(row) -> -1 to 1,
  // extra: {title: value(row)} that the CSV has beside it. Rows are whatever the functions take; filter(row) says which are shown.
  function table(element, columns, rows, { order = [], page = 50, name = "table", search = true, filter = null, paging = rows.length > page } = {}) {
    const escaped = (text) => make("p", {}, text).innerHTML.replaceAll('"', "&quot;");
    const cell = (column) => (row, type) => {
      const value = column.value(row);
      if (type === "display") return column.show ? node(column.show(row)) : column.digits === undefined ? escaped(value ?? MISSING) : number(value, column.digits);
      if (type === "export") return value ?? "";
      if (type === "sort" && column.digits !== undefined) return value ?? -Infinity;
      return value ?? "";
    };
    const node = (shown) => (shown instanceof Node ? shown : escaped(shown ?? MISSING));
    const style = (column) => (td, _, row) => {
      if (column.value(row) === null || column.value(row) === undefined) td.classList.add("missing");
      if (column.hint) td.title = column.hint(row);
      const shade = column.shade?.(row);
      if (shade) {
        td.classList.add("shaded", shade > 0 ? "up" : "down");
        td.style.setProperty("--share", Math.min(1, Math.abs(shade)));
      }
    };
    const csv = {
      extend: "csvHtml5",
      text: "Save as CSV",
      filename: name,
      exportOptions: {
        columns: ":visible",
        orthogonal: "export",
        stripHtml: false,
        decodeEntities: false,
        escapeExcelFormula: true,
        customizeData: (out) => beside(out, made),
      },
    };
    const beside = (out, shown) => {
      const visible = columns.filter((_, i) => shown.column(i).visible());
      const chosen = shown.rows({ search: "applied", order: "applied" }).data().toArray();
      const wide = (own, more) => visible.flatMap((column, i) => [own[i], ...Object.entries(column.extra ?? {}).map(more)]);
      const titles = visible.flatMap((column) => [column.title, ...Object.keys(column.extra ?? {}).map((key) => `${column.title} ${key}`)]);
      out.headerStructure = [titles.map((title) => ({ title: /^[=+\-@\t\r]/.test(title) ? `'${title}` : title }))]; // a spreadsheet would run a formula
      out.body = out.body.map((line, i) => wide(line, ([, value]) => value(chosen[i]) ?? ""));
    };
    const made = new DataTable(element, {
      data: rows,
      autoWidth: false,
      deferRender: true,
      pageLength: page,
      lengthMenu: [25, 50, 100, 250, 1000],
      paging,
      order,
      orderMulti: true,
      searching: true,
      layout: {
        topStart: { buttons: [{ extend: "colvis", text: "Columns", columns: ":not(.first)" }, ...(search ? ["searchBuilder"] : []), csv] },
        topEnd: search ? "search" : null,
        bottomStart: paging ? ["info", "pageLength"] : "info",
        bottomEnd: paging ? "paging" : null,
      },
      language: { searchBuilder: { button: { 0: "Conditions", _: "Conditions (%d)" }, title: { 0: "Conditions", _: "Conditions (%d)" } } },
      columns: columns.map((column, i) => ({
        data: null,
        title: escaped(column.title),
        type: column.digits === undefined ? "string" : "num",
        visible: !column.hidden,
        searchable: column.searchable ?? column.digits === undefined,
        className: [column.digits === undefined ? "" : "number", i === 0 ? "first" : ""].join(" ").trim(),
        orderSequence: column.digits === undefined ? ["asc", "desc"] : ["desc", "asc"],
        render: cell(column),
        createdCell: style(column),
      })),
    });
    if (filter) {
      made.search.fixed("filter", (_, row) => filter(row));
      if (!rows.every(filter)) made.draw();
    }
    return made;
  }

  // ---------------------------------------------------------------- charts (Plotly)

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function layout(more = {}) {
    const axis = { gridcolor: css("--line"), zerolinecolor: css("--soft"), linecolor: css("--soft"), automargin: true };
    const { xaxis, yaxis, ...rest } = more;
    return {
      paper_bgcolor: css("--paper"),
      plot_bgcolor: css("--paper"),
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: css("--ink") },
      margin: { l: 10, r: 10, t: 10, b: 10 },
      hoverlabel: { bgcolor: css("--shade"), bordercolor: css("--soft"), font: { color: css("--ink") }, align: "left" },
      showlegend: false,
      ...rest,
      xaxis: { ...axis, ...xaxis },
      yaxis: { ...axis, ...yaxis },
    };
  }

  // Plotly reads a little HTML in labels and hover texts; names are shown as they are.
  const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

  function chart(element, traces, more = {}, clicked = null) {
    const { height = 320, ...rest } = more;
    element.style.height = `${height}px`;
    Plotly.react(element, traces, layout(rest), { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"] });
    if (clicked) {
      element.removeAllListeners?.("plotly_click");
      element.on("plotly_click", (event) => clicked(event.points[0]));
    }
  }

  // The colours of gains: blue down, red up, the paper at 0.
  const diverging = () => [[0, css("--down")], [0.5, css("--paper")], [1, css("--up")]];

  return { data, put, start, make, number, signed, whole, figures, q, interval, gain, byKey, label, colour, link, naming, fill, table, chart, plain, diverging, css, dark };
})();
