/**
 * Counters, histograms and the text that Prometheus reads (its text format 0.0.4). Knows nothing of what is counted.
 *
 * Each instrument has a limit of series: what would be one more is counted under labels that all say `(other)`, so that
 * nobody outside can make memory or answers grow.
 */

export type Labels = Readonly<Record<string, string>>;

export type Sample = {
  /** Behind the family's name: `_bucket`, `_sum`, `_count` of a histogram. */
  readonly suffix?: string;
  readonly labels: Labels;
  readonly value: number;
};

export type Family = {
  readonly name: string;
  /** A sentence, with the unit where the name does not say it. */
  readonly help: string;
  readonly type: "counter" | "gauge" | "histogram";
  readonly samples: readonly Sample[];
};

export type Counter = { add(labels: Labels, amount?: number): void; collect(): Family };
export type Histogram = { observe(labels: Labels, value: number): void; collect(): Family };

export const EXPOSITION_TYPE = "text/plain; version=0.0.4; charset=utf-8";
export const OTHER = "(other)";

type Described = {
  readonly name: string;
  readonly help: string;
  /** Series at most. */
  readonly seriesMax: number;
};

export function createCounter(described: Described): Counter {
  const series = createSeries(described.seriesMax, () => ({ value: 0 }));
  return {
    add(labels, amount = 1) {
      series.find(labels).value += amount;
    },
    collect: () => ({
      name: described.name,
      help: described.help,
      type: "counter",
      samples: series.list().map(({ labels, of }) => ({ labels, value: of.value })),
    }),
  };
}

/** @param described.bounds upper bounds of the buckets, ascending; the one without bound is added */
export function createHistogram(described: Described & { readonly bounds: readonly number[] }): Histogram {
  const { bounds } = described;
  const series = createSeries(described.seriesMax, () => ({ counts: bounds.map(() => 0), sum: 0, count: 0 }));
  return {
    observe(labels, value) {
      const of = series.find(labels);
      const index = bounds.findIndex((bound) => value <= bound);
      if (index >= 0) of.counts[index] = (of.counts[index] ?? 0) + 1;
      of.sum += value;
      of.count += 1;
    },
    collect: () => ({
      name: described.name,
      help: described.help,
      type: "histogram",
      samples: series.list().flatMap(({ labels, of }): Sample[] => {
        let below = 0;
        const buckets = bounds.map((bound, index): Sample => {
          below += of.counts[index] ?? 0;
          return { suffix: "_bucket", labels: { ...labels, le: String(bound) }, value: below };
        });
        return [
          ...buckets,
          { suffix: "_bucket", labels: { ...labels, le: "+Inf" }, value: of.count },
          { suffix: "_sum", labels, value: of.sum },
          { suffix: "_count", labels, value: of.count },
        ];
      }),
    }),
  };
}

/** A family of one series without labels. */
export function singleGauge(name: string, help: string, value: number): Family {
  return { name, help, type: "gauge", samples: [{ labels: {}, value }] };
}

/** Families without a sample are left out. */
export function formatExposition(families: readonly Family[]): string {
  return families
    .filter(({ samples }) => samples.length > 0)
    .map((family) => {
      const lines = family.samples.map(
        ({ suffix = "", labels, value }) => `${family.name}${suffix}${formatLabels(labels)} ${formatNumber(value)}\n`,
      );
      return `# HELP ${family.name} ${escapeHelp(family.help)}\n# TYPE ${family.name} ${family.type}\n${lines.join("")}`;
    })
    .join("");
}

function createSeries<Value>(max: number, begin: () => Value) {
  const known = new Map<string, { readonly labels: Labels; readonly of: Value }>();
  const find = (labels: Labels): Value => {
    const key = Object.values(labels).join("\0");
    const found = known.get(key);
    if (found !== undefined) return found.of;
    // The last place is for all others.
    if (known.size >= max - 1 && Object.values(labels).some((value) => value !== OTHER)) {
      return find(Object.fromEntries(Object.keys(labels).map((name) => [name, OTHER])));
    }
    const of = begin();
    known.set(key, { labels, of });
    return of;
  };
  return { find, list: () => [...known.values()] };
}

function formatLabels(labels: Labels): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escapeLabel(value)}"`);
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}

function formatNumber(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "+Inf" : "-Inf";
  return String(value);
}

function escapeHelp(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
}

function escapeLabel(text: string): string {
  return escapeHelp(text).replaceAll('"', '\\"');
}
