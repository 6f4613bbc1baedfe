// Items of a benchmark with the answers of a base model and two of its checkpoints, named in the address:
// answers.html?model=...&benchmark=...&first=ADDRESS&second=ADDRESS&filter=...
"use strict";

atlas.start(async () => {
  const [study, addresses, index] = await Promise.all([atlas.data("study"), atlas.data("addresses"), atlas.data("answers")]);
  const names = atlas.naming(study);
  const element = (name) => document.getElementById(name);
  const make = atlas.make;
  const choices = Object.fromEntries(["model", "benchmark", "first", "second", "filter", "words"].map((name) => [name, element(name)]));
  const PAGE = 20;

  const lost = [...index.left_out, ...index.absent];
  if (lost.length) {
    element("lost").hidden = false;
    element("lost-note").textContent =
      `${atlas.whole(index.left_out.length)} are left out because an atlas has the answers of ${atlas.whole(index.limits.checkpoints)} checkpoints at most, ` +
      `base models and last epochs first; ${atlas.whole(index.absent.length)} have no file of samples.`;
    element("lost-list").replaceChildren(...lost.map((address) => make("li", {}, atlas.link(address))));
  }
  const benchmarks = study.benchmarks.map((entry, number) => ({ ...entry, ...index.benchmarks[entry.key], number })).filter((entry) => index.benchmarks[entry.key]);
  if (!benchmarks.length) {
    element("none").textContent = "There are no answers to show: results/{study}/runs/.../samples/ has no files. They are written when checkpoints are evaluated.";
    document.querySelector("form.controls").hidden = true;
    return;
  }
  const answered = new Set(benchmarks.flatMap((entry) => entry.checkpoints));
  const held = addresses.filter((_, number) => answered.has(number));
  const isBase = (address) => address.split("/")[1] === "base";
  const option = (entry) => [entry.key, entry.label];
  atlas.fill(choices.model, study.models.filter((entry) => held.some((address) => address.split("/")[0] === entry.key)).map(option));
  atlas.fill(choices.benchmark, benchmarks.map(option));
  const FILTERS = [
    ["all", "all items"],
    ["base-first", "base wrong, first right", "base below first"],
    ["first-base", "first wrong, base right", "first below base"],
    ["base-second", "base wrong, second right", "base below second"],
    ["second-base", "second wrong, base right", "second below base"],
    ["first-second", "first wrong, second right", "first below second"],
    ["second-first", "second wrong, first right", "second below first"],
    ["differ", "different raw answers"],
    ["unparsed", "unparsed"],
    ["truncated", "truncated"],
    ["missing", "without a score"],
  ];

  function offer(first, second) {
    const own = held.filter((address) => address.split("/")[0] === choices.model.value && !isBase(address));
    const entries = own.map((address) => [address, names.run(address)]);
    atlas.fill(choices.first, [["", "none"], ...entries], own.includes(first) ? first : own[0] ?? "");
    atlas.fill(choices.second, [["", "none"], ...entries], own.includes(second) ? second : "");
  }

  const wanted = new URLSearchParams(location.search);
  const model = wanted.get("model") ?? wanted.get("first")?.split("/")[0];
  if (model && [...choices.model.options].some((each) => each.value === model)) choices.model.value = model;
  if (benchmarks.some((entry) => entry.key === wanted.get("benchmark"))) choices.benchmark.value = wanted.get("benchmark");
  offer(wanted.get("first"), wanted.get("second"));
  const asked = ["first", "second"].map((side) => wanted.get(side)).filter((address) => address && !held.includes(address) && !isBase(address));
  element("none").textContent = asked.length ? `This atlas has no answers of ${asked.join(" and ")}; others are shown.` : "";
  choices.words.value = wanted.get("words") ?? "";

  const whole = (text) => (Array.isArray(text) ? text[0] : text ?? "");
  function words(text, name) {
    const shown = whole(text);
    if (text === null || text === undefined) return make("p", { class: "note" }, `${name}: none`);
    if (shown === "") return make("p", { class: "note" }, `${name}: empty`);
    if (!shown.trim()) return make("p", { class: "note" }, `${name}: white space only`);
    const parts = [make("p", { class: "note" }, name), make("pre", {}, shown)];
    if (Array.isArray(text)) parts.push(make("p", { class: "note" }, `and ${atlas.whole(text[1])} more characters, in the file of samples`));
    return make("div", {}, ...parts);
  }

  function verdict(own, i) {
    const score = own.score[i];
    const badge = (text, kind) => make("span", { class: `badge ${kind}` }, text);
    const badges = [score === null ? badge(`no score${own.missing[i] ? `: ${whole(own.missing[i])}` : ""}`, "odd") : score >= 1 ? badge("right", "right") : score <= 0 ? badge("wrong", "wrong") : badge(`score ${atlas.number(score, 2)}`, "")];
    if (own.parsed[i] === 0) badges.push(badge("unparsed", "odd"));
    if (own.truncated[i]) badges.push(badge("truncated", "odd"));
    return make("p", { class: "badges" }, ...badges);
  }

  let rows = [], shownRows = [], sides = [], drawn = 0;

  // An item: {item, prompt, target, at: [place in each side, or undefined]}
  function pair() {
    const places = sides.map(({ own }) => new Map(own.item.map((item, i) => [item, i])));
    const items = [...new Set(sides.flatMap(({ own }) => own.item))].sort((a, b) => a - b);
    rows = items.map((item) => {
      const at = places.map((place) => place.get(item));
      const text = (key) => sides.map(({ own }, side) => (at[side] === undefined ? null : own[key][at[side]]));
      return { item, at, prompts: text("prompt"), targets: text("target") };
    });
  }

  const value = (row, side, key) => {
    const place = sides.findIndex((each) => each.side === side);
    return place < 0 || row.at[place] === undefined ? null : sides[place].own[key][row.at[place]];
  };
  const every = (row, key) => sides.map(({ own }, side) => (row.at[side] === undefined ? null : own[key][row.at[side]]));
  const below = (low, high) => (row) => value(row, low, "score") !== null && value(row, high, "score") !== null && value(row, low, "score") < value(row, high, "score");
  const TESTS = {
    all: () => true,
    differ: (row) => new Set(every(row, "output").map(whole)).size > 1,
    unparsed: (row) => every(row, "parsed").includes(0),
    truncated: (row) => every(row, "truncated").includes(true),
    missing: (row) => sides.some(({ own }, side) => row.at[side] !== undefined && own.score[row.at[side]] === null),
  };

  function card(row) {
    const prompt = row.prompts.find((text) => text !== null && text !== undefined);
    const target = row.targets.find((text) => text !== null && text !== undefined);
    const other = (side) => sides[side].side !== "base" && row.prompts[side] !== null && row.prompts[side] !== undefined && whole(row.prompts[side]) !== whole(prompt);
    const columns = sides.map(({ own, title, address }, side) => {
      const head = make("h3", {}, atlas.link(address, title));
      if (row.at[side] === undefined) return make("section", {}, head, make("p", { class: "note" }, "has no answer to this item"));
      const i = row.at[side];
      return make("section", {}, head, verdict(own, i), words(own.extracted[i], "Extracted"), words(own.output[i], "Raw answer"), other(side) ? words(row.prompts[side], "Its own prompt") : null);
    });
    return make("article", { class: "item", "aria-label": `Item ${row.item}` }, make("h2", {}, `Item ${row.item}`), words(prompt, "Prompt"), words(target, "Target"), make("div", { class: "answers" }, ...columns));
  }

  function more() {
    const made = shownRows.slice(drawn, drawn + PAGE).map(card);
    element("items").append(...made);
    drawn += made.length;
    for (const box of element("items").querySelectorAll("pre:not([tabindex])")) if (box.scrollHeight > box.clientHeight + 1) box.setAttribute("tabindex", "0"); // the keyboard scrolls it
    element("more").hidden = drawn >= shownRows.length;
  }

  function filter() {
    const kind = choices.filter.value, text = choices.words.value.toLowerCase();
    const test = TESTS[kind] ?? below(...kind.split("-"));
    const contains = (row) => !text || [...row.prompts, ...row.targets, ...every(row, "output"), ...every(row, "extracted")].some((each) => whole(each).toLowerCase().includes(text));
    shownRows = rows.filter((row) => test(row) && contains(row));
    drawn = 0;
    element("items").replaceChildren();
    element("count").textContent = `${atlas.whole(shownRows.length)} of ${atlas.whole(rows.length)} items.`;
    more();
    const query = new URLSearchParams(Object.entries(choices).map(([key, each]) => [key, each.value]).filter(([key, chosen]) => chosen && !(key === "filter" && chosen === "all")));
    history.replaceState(null, "", `?${query}`);
  }

  let turn = 0;
  async function show() {
    const own = ++turn;
    const entry = benchmarks.find((each) => each.key === choices.benchmark.value);
    const base = held.find((address) => address.split("/")[0] === choices.model.value && isBase(address));
    const chosen = [["base", base], ["first", choices.first.value], ["second", choices.second.value]].filter(([, address]) => address);
    const there = chosen.filter(([, address]) => entry.checkpoints.includes(addresses.indexOf(address)));
    const lacking = chosen.filter((each) => !there.includes(each)).map(([, address]) => address);
    const loaded = await Promise.all(there.map(([, address]) => atlas.data(`answers/${entry.number}/${addresses.indexOf(address)}`)));
    if (own !== turn) return; // another choice came meanwhile
    sides = there.map(([side, address], i) => ({ side, address, own: loaded[i], title: side === "base" ? "Base model" : names.run(address) }));
    const has = (side) => there.some(([name]) => name === side);
    const kind = choices.filter.value || wanted.get("filter") || "all";
    const possible = FILTERS.filter(([key]) => !key.includes("-") || key.split("-").every(has));
    atlas.fill(choices.filter, possible.map(([key, text, graded]) => [key, entry.graded && graded ? graded : text]), possible.some(([key]) => key === kind) ? kind : "all");
    const part = entry.shown < entry.items ? `${atlas.whole(entry.shown)} of ${atlas.whole(entry.items)} items, evenly spread over the benchmark, are in this atlas.` : `All ${atlas.whole(entry.items)} items are here.`;
    element("bounds").textContent = [part, lacking.length ? `No answers to this benchmark of ${lacking.join(", ")}.` : ""].join(" ");
    pair();
    filter();
  }

  const shown = () => show().catch((error) => element("problems").append(make("p", { class: "problem" }, error.message)));
  choices.model.addEventListener("change", () => {
    offer("", "");
    shown();
  });
  for (const key of ["benchmark", "first", "second"]) choices[key].addEventListener("change", shown);
  choices.filter.addEventListener("change", filter);
  choices.words.addEventListener("input", filter);
  element("more").addEventListener("click", more);
  document.querySelector("form.controls").addEventListener("submit", (event) => event.preventDefault());
  await show();
});
