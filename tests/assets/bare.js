// A plain training loop: a scenario (JSON) on the standard input, its trace on the standard output.
const scenario = JSON.parse(require("fs").readFileSync(0, "utf8"));
const STAGES = ["train", "val"];
let seq = 0, depth = 0, params = 0, training = true;
let weights = [0.25, -0.5, 0.75, 0.125], bias = 0.0625;

const line = (object) => console.log(JSON.stringify(object));
const event = (ph, receiver, hook, args) =>
  line({ seq: seq++, ph, rank: 0, receiver, hook, depth, args, fx: { params, training } });

function span(receiver, hook, args, body) {
  event("B", receiver, hook, args);
  depth++;
  const result = body();
  depth--;
  event("E", receiver, hook, args);
  return result;
}

function* batches(stage, loader, count) {
  const { batch_size, last } = scenario.data;
  for (let batch = 0; batch < count; batch++) {
    const rows = [];
    for (let row = 0; row < (batch + 1 < count ? batch_size : last); row++) {
      const x = [0, 1, 2, 3].map((j) => ((5 * batch + 7 * row + 3 * j) % 11 - 5) / 8);
      x[3] = (stage * 2 ** 19 + loader * 2 ** 16 + batch) / 2 ** 24;
      rows.push([x, (3 * batch + 5 * row) % 7 / 4 + 0.25]);
    }
    yield [{ batch: `${STAGES[stage]}/${loader}/${batch}`, batch_idx: batch }, rows];
  }
}

const error = ([x, y]) => x.reduce((sum, value, j) => sum + value * weights[j], bias) - y;
const step = (rows) => rows.reduce((sum, row) => sum + error(row) ** 2, 0) / rows.length;

function update(rows) {
  const slopes = rows.map(([x, y]) => 2 * error([x, y]) / rows.length);
  weights = weights.map((weight, j) => weight - 0.0625 * rows.reduce((sum, [x], i) => sum + slopes[i] * x[j], 0));
  bias -= 0.0625 * slopes.reduce((sum, slope) => sum + slope, 0);
  params++;
}

function fit() {
  for (let epoch = 0; epoch < (scenario.trainer.max_epochs || 1); epoch++) {
    for (const [args, rows] of batches(0, 0, scenario.data.train)) {
      span("module", "training_step", args, () => step(rows));
      span("optimizer", "step", {}, () => update(rows));
    }
    training = false;
    for (const [loader, count] of scenario.data.val.entries()) {
      for (const [args, rows] of batches(1, loader, count)) {
        span("module", "validation_step", args, () => step(rows));
      }
    }
    training = true;
  }
}

line({
  format: "refimpl-trace", version: 1, suite: "0.1.0", scenario, trainer: { name: "plain-js", version: "1" },
  declares: {
    hooks: ["training_step", "validation_step"], effects: ["params", "training"], lacks: ["closures", "sanity-check"],
  },
  environment: {},
});
span("trainer", "fit", {}, fit);
line({ events: seq, outcome: "returned", error: "" });
