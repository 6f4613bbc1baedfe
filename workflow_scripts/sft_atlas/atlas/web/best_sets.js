// Which training set is best for a topic: over base models, and on each.
"use strict";

atlas.start(async () => {
  const [study, data] = await Promise.all([atlas.data("study"), atlas.data("best_sets")]);
  const models = atlas.byKey(study.models), datasets = atlas.byKey(study.datasets);
  const element = (name) => document.getElementById(name);
  const of = (kind) => [["all"], ["group "], ["benchmark "]][kind][0];
  const topics = (kind) => data.topics.filter((topic) => topic.key.startsWith(of(kind))).map((topic) => [topic.key, topic.label]);
  if (!data.sets.topic.length) {
    element("none").textContent = "This study cannot rank training sets: that needs two or more single training sets on one base model.";
    return;
  }
  const methods = study.methods.filter((entry) => data.sets.method.includes(entry.key));
  atlas.fill(element("topic"), [...topics(0), { group: "groups of benchmarks", entries: topics(1) }, { group: "benchmarks", entries: topics(2) }]);
  atlas.fill(element("method"), methods.map((entry) => [entry.key, entry.label]));
  const wanted = new URLSearchParams(location.search);
  for (const key of ["topic", "method"]) if (wanted.has(key)) element(key).value = wanted.get(key);

  const set = (key) => atlas.label(datasets, key);
  const s = data.sets, m = data.models;
  const span = (table, i, effect, low, high) =>
    table[effect][i] === null ? "–" : `${atlas.signed(table[effect][i])}${table[low][i] === null ? "" : ` ${atlas.interval(table[low][i], table[high][i])}`}`;
  const extra = (table, keys) => Object.fromEntries(keys.map((key) => [key.replace(/^.*_/, ""), (i) => table[key][i]]));
  const toExplorer = (query, text) => atlas.make("a", { href: `explorer.html?${new URLSearchParams({ last: true, show: "both", ...query })}` }, text);

  const ofSets = [
    { title: "Training set", value: (i) => set(s.dataset[i]), show: (i) => toExplorer({ dataset: s.dataset[i], method: s.method[i] }, set(s.dataset[i])) },
    { title: "Rank", value: (i) => s.rank[i], digits: 0 },
    { title: "Gain over the base model", value: (i) => s.gain[i], digits: 1, show: (i) => span(s, i, "gain", "low", "high"), hint: (i) => s.interval[i], extra: extra(s, ["low", "high"]) },
    { title: "q", value: (i) => s.q[i], digits: 3, show: (i) => (s.q[i] === null ? "cannot be decided" : atlas.q(s.q[i])) },
    { title: "n", value: (i) => s.n[i], digits: 0, show: (i) => `${s.n[i]} ${s.unit[i]}` },
    { title: "Behind the best", value: (i) => s.behind[i], digits: 1, show: (i) => (s.rank[i] === 1 ? "is the best" : span(s, i, "behind", "behind_low", "behind_high")), hint: (i) => s.behind_interval[i], extra: extra(s, ["behind_low", "behind_high"]) },
    {
      title: "Told apart from the best?",
      value: (i) => (s.rank[i] === 1 ? "" : s.behind_q[i] === null ? `cannot be decided with ${s.behind_n[i]}` : `${s.behind_q[i] < 0.05 ? "yes" : "no"}, ${atlas.q(s.behind_q[i])}`),
    },
    { title: "Best on", value: (i) => s.first_on[i], digits: 0, show: (i) => `${s.first_on[i]} of its base models` },
  ];
  const ofModels = [
    { title: "Base model", value: (i) => atlas.label(models, m.model[i]), show: (i) => atlas.link(`${m.model[i]}/${m.dataset[i]}/${m.recipe[i]}/${m.epoch[i]}`, atlas.label(models, m.model[i])) },
    { title: "Best training set", value: (i) => set(m.dataset[i]) },
    { title: "Gain over the base model", value: (i) => m.gain[i], digits: 1, show: (i) => (m.gain[i] === null ? "no base score" : span(m, i, "gain", "low", "high")), extra: extra(m, ["low", "high"]) },
    { title: "Lead over the second", value: (i) => m.lead[i], digits: 1, show: (i) => span(m, i, "lead", "lead_low", "lead_high"), extra: extra(m, ["lead_low", "lead_high"]) },
    { title: "Second", value: (i) => (m.second[i] === null ? "" : set(m.second[i])) },
    { title: "p of the lead", value: (i) => m.p[i], digits: 3, show: (i) => atlas.q(m.p[i]).replace("q", "p") || "–" },
    { title: "Not told apart from the best", value: (i) => m.close[i].map(set).join(", ") || "none: the best is sure" },
    { title: "Sets", value: (i) => m.sets[i], digits: 0 },
    { title: "Benchmarks", value: (i) => m.benchmarks[i], digits: 0 },
    { title: "n", value: (i) => m.items[i], digits: 0, show: (i) => atlas.whole(m.items[i]) },
  ];
  const rows = (table) => table.topic.map((_, i) => i);
  const picked = (table) => (i) => table.topic[i] === element("topic").value && table.method[i] === element("method").value;
  const tables = [
    atlas.table(element("sets"), ofSets, rows(s), { name: `${study.study}-sets`, order: [[1, "asc"]], search: false, paging: false, filter: picked(s) }),
    atlas.table(element("models"), ofModels, rows(m), { name: `${study.study}-best`, search: false, paging: false, filter: picked(m) }),
  ];

  const say = () => {
    const own = rows(s).filter(picked(s)), first = own.find((i) => s.rank[i] === 1);
    if (first === undefined) return (element("answer").textContent = "There are no such runs.");
    const close = own.filter((i) => s.rank[i] > 1 && !(s.behind_q[i] !== null && s.behind_q[i] < 0.05)).map((i) => set(s.dataset[i]));
    const sure = close.length ? `not told apart from it: ${close.join(", ")}` : "every other set is significantly behind it";
    element("answer").replaceChildren(
      atlas.make("strong", {}, set(s.dataset[first])),
      ` is best for ${element("topic").selectedOptions[0].textContent}, gain ${span(s, first, "gain", "low", "high")} over ${s.n[first]} ${s.unit[first]}; ${sure}.`,
    );
  };
  for (const key of ["topic", "method"])
    element(key).addEventListener("change", () => {
      tables.forEach((table) => table.draw());
      say();
    });
  say();
});
