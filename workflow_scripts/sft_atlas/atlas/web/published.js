// The authors' rows, as published or repaired, with marks on what the audit changed.
"use strict";

atlas.start(async () => {
  const [study, data] = await Promise.all([atlas.data("study"), atlas.data("published")]);
  const models = atlas.byKey(study.models), datasets = atlas.byKey(study.datasets), methods = atlas.byKey(study.methods);
  const tasks = atlas.byKey(data.tasks), findings = new Map(data.findings.map((entry) => [entry.finding, entry]));
  const element = (name) => document.getElementById(name);
  const rows = data.rows.row.map((_, i) => i), r = data.rows;
  const changes = new Map(data.changes.map(([place, task, value, finding]) => [`${place} ${task}`, { value, finding }]));
  const changed = (i, task) => changes.get(`${i} ${task}`);
  const repaired = () => element("policy").value === "repaired";
  const set = (key) => (key === "base" ? "none (base model)" : atlas.label(datasets, key));
  const text = (value) => (value === null || value === undefined ? "null" : atlas.number(value, 2));

  const score = (i, task) => (repaired() && changed(i, task) ? changed(i, task).value : data.raw[task][i]);
  const columns = [
    { title: "Base model", value: (i) => atlas.label(models, r.model[i]), show: (i) => (r.address[i] ? atlas.link(r.address[i], atlas.label(models, r.model[i])) : atlas.label(models, r.model[i])) },
    { title: "Row", value: (i) => r.row[i], digits: 0 },
    { title: "Training set", value: (i) => set(r.dataset[i]) },
    { title: "Method", value: (i) => atlas.label(methods, r.method[i]) },
    { title: "Rows", value: (i) => r.rows[i], digits: 0, show: (i) => atlas.whole(r.rows[i]) },
    { title: "Epoch", value: (i) => r.epoch[i], digits: 0 },
    { title: "Schedule", value: (i) => r.schedule[i], hidden: true },
    ...data.tasks.map((task) => ({
      title: task.label,
      value: (i) => score(i, task.key),
      digits: 2,
      show: (i) => {
        const change = changed(i, task.key), shown = score(i, task.key) === null ? "–" : atlas.number(score(i, task.key), 2);
        return change ? `${shown} ${change.value === null ? "†" : "*"}` : shown;
      },
      hint: (i) => {
        const change = changed(i, task.key), unit = task.unit ? ` (${task.unit})` : "";
        return change
          ? `${task.label}${unit}: ${text(data.raw[task.key][i])} as published, ${change.value === null ? "set to null" : `recomputed as ${text(change.value)}`}. ${findings.get(change.finding)?.title ?? change.finding}`
          : `${task.label}${unit}: as published`;
      },
      shade: (i) => (changed(i, task.key) ? (changed(i, task.key).value === null ? 0.5 : -0.5) : 0),
    })),
  ];
  const first = columns.length - data.tasks.length;

  const named = (list, key) => list.filter((entry) => r[key].includes(entry.key)).map((entry) => [entry.key, entry.label]);
  atlas.fill(element("model"), [["", "all"], ...named(study.models, "model")]);
  const groups = [...new Set(data.tasks.map((task) => task.group))];
  atlas.fill(element("group"), [["", "all"], ...groups.map((group) => [group, group])]);
  const causes = [...new Set(data.changes.map((change) => change[3]))];
  atlas.fill(element("finding"), [["", "anything or nothing"], ["any", "any finding"], ...causes.map((key) => [key, `${findings.get(key)?.title ?? key} (${key})`])]);
  const touched = new Map(); // place -> findings
  for (const [place, , , finding] of data.changes) touched.set(place, (touched.get(place) ?? new Set()).add(finding));
  const picked = (i) => {
    const cause = element("finding").value;
    return (!element("model").value || r.model[i] === element("model").value) && (!cause || (cause === "any" ? touched.has(i) : touched.get(i)?.has(cause)));
  };
  const nulled = data.changes.filter((change) => change[2] === null).length;
  element("count").textContent = `${atlas.whole(rows.length)} rows; ${atlas.whole(data.changes.length - nulled)} scores recomputed, ${atlas.whole(nulled)} set to null.`;

  const table = atlas.table(element("table"), columns, rows, { name: "published-scores", page: 25, filter: picked });
  const list = atlas.table(
    element("changes"),
    [
      { title: "Checkpoint", value: ([place]) => `${atlas.label(models, r.model[place])} + ${set(r.dataset[place])}, ${atlas.label(methods, r.method[place])}, epoch ${r.epoch[place]}` },
      { title: "Row", value: ([place]) => r.row[place], digits: 0 },
      { title: "Benchmark", value: ([, task]) => tasks.get(task)?.label ?? task },
      { title: "As published", value: ([place, task]) => data.raw[task]?.[place] ?? null, digits: 2 },
      { title: "Repaired", value: ([, , value]) => value, digits: 2, show: ([, , value]) => (value === null ? "null" : atlas.number(value, 2)) },
      { title: "Reason", value: ([, , , finding]) => findings.get(finding)?.title ?? finding },
      { title: "Finding", value: ([, , , finding]) => finding },
    ],
    data.changes,
    { name: "published-changes", page: 25, filter: ([place, task, , finding]) => picked(place) && (!["", "any"].includes(element("finding").value) ? finding === element("finding").value : true) && (!element("group").value || tasks.get(task)?.group === element("group").value) },
  );
  element("findings").replaceChildren(
    ...data.findings.map((entry) =>
      atlas.make(
        "details",
        {},
        atlas.make("summary", {}, `${entry.title} (${entry.finding}), severity ${entry.severity}`),
        ...[["Proven", entry.proven], ["Likely", entry.likely], ["Not known", entry.unknown], ["Done", entry.action]]
          .filter(([, said]) => said)
          .map(([name, said]) => atlas.make("p", {}, atlas.make("strong", {}, `${name}: `), said)),
      ),
    ),
  );
  for (const key of ["model", "finding"])
    element(key).addEventListener("change", () => {
      table.draw();
      list.draw();
    });
  element("policy").addEventListener("change", () => table.rows().invalidate().draw(false));
  element("group").addEventListener("change", () => {
    data.tasks.forEach((task, i) => table.column(first + i).visible(!element("group").value || task.group === element("group").value, false));
    table.columns.adjust();
    list.draw();
  });
});
