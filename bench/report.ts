/** How a bench says what it found: figures, the ratio to a peer of the same run, and the reach. */

/** "": a number of things. */
export type Unit = "ms" | "us" | "s" | "MB" | "kB" | "%" | "lines/s" | "";

export type Figure = { readonly label: string; readonly value: number; readonly unit: Unit };

export type Finding = {
  readonly figures: readonly Figure[];
  /** Ours by the peer's, both measured in this run. */
  readonly ratios: readonly { readonly label: string; readonly value: number }[];
  /** What we want not to exceed. Never asserted: another machine, or a busy one, has other times. */
  readonly reaches: readonly (Figure & { readonly most: number })[];
};

export type Bench = {
  readonly name: string;
  readonly summary: string;
  readonly run: () => Promise<Finding>;
};

const BYTES_PER_MB = 1e6;

/** Megabytes, the decimal ones, in which the reaches are given. */
export function megabytes(label: string, bytes: number): Figure {
  return { label, value: bytes / BYTES_PER_MB, unit: "MB" };
}

/** @returns lines with aligned labels */
export function formatFinding({ figures, ratios, reaches }: Finding): string {
  const width = Math.max(...[...figures, ...ratios, ...reaches].map(({ label }) => label.length));
  const line = (label: string, text: string) => `  ${label.padEnd(width)}  ${text}`;
  return [
    ...figures.map((figure) => line(figure.label, formatValue(figure))),
    ...ratios.map(({ label, value }) => line(label, `${value.toFixed(2)} x`)),
    ...reaches.map((reach) => {
      const verdict = reach.value <= reach.most ? "met" : "MISSED";
      return line(reach.label, `${formatValue(reach)}, reach ${reach.most} ${reach.unit}: ${verdict}`);
    }),
  ].join("\n");
}

function formatValue({ value, unit }: Figure): string {
  return `${value.toFixed(value < 100 ? 1 : 0)} ${unit}`;
}
