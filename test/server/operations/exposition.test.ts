/** The text that Prometheus reads, and that no label makes it grow. */
import { expect, test } from "bun:test";
import { createCounter, createHistogram, formatExposition } from "../../../src/server/operations/metrics/exposition.ts";

test("counters and histograms, as Prometheus' format 0.0.4 has them", () => {
  const counter = createCounter({ name: "frames_total", help: 'Frames, "both" ways\\.', seriesMax: 10 });
  counter.add({ kind: "ping" });
  counter.add({ kind: "ping" }, 2);
  counter.add({ kind: 'a "b"\n\\' });
  const histogram = createHistogram({ name: "took_seconds", help: "Time.", seriesMax: 10, bounds: [0.1, 1] });
  for (const value of [0.05, 0.1, 0.5, 3]) histogram.observe({ route: "/x" }, value);
  const unused = createCounter({ name: "never_total", help: "Nothing.", seriesMax: 10 });
  const text = formatExposition([counter.collect(), histogram.collect(), unused.collect()]);
  expect(text).toBe(`# HELP frames_total Frames, "both" ways\\\\.
# TYPE frames_total counter
frames_total{kind="ping"} 3
frames_total{kind="a \\"b\\"\\n\\\\"} 1
# HELP took_seconds Time.
# TYPE took_seconds histogram
took_seconds_bucket{route="/x",le="0.1"} 2
took_seconds_bucket{route="/x",le="1"} 3
took_seconds_bucket{route="/x",le="+Inf"} 4
took_seconds_sum{route="/x"} 3.65
took_seconds_count{route="/x"} 4
`);
});

test("what is one series too many is counted with all others", () => {
  const counter = createCounter({ name: "n_total", help: "N.", seriesMax: 3 });
  for (let index = 0; index < 1_000; index += 1) counter.add({ a: `${index}`, b: "x" });
  counter.add({ a: "1", b: "x" });
  expect(counter.collect().samples).toEqual([
    { labels: { a: "0", b: "x" }, value: 1 },
    { labels: { a: "1", b: "x" }, value: 2 },
    { labels: { a: "(other)", b: "(other)" }, value: 998 },
  ]);
});
