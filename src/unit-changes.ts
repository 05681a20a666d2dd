/**
 * What a NixOS system says it would do to units when it is asked by `switch-to-configuration dry-activate`: the lines it
 * prints, as values. Pure. Lines that are none of these are left to the log.
 *
 *     would stop the following units: a.service, b.service
 *     would NOT stop the following changed units: …
 *     would restart systemd
 *     would reload | restart | start the following units: …
 *     would stop swap device: /dev/…
 *
 * Source: nixpkgs `pkgs/by-name/sw/switch-to-configuration-ng/src/main.rs`, `do_system_switch`; the older Perl script has
 * the same texts. Units of users are no part of a dry activation there.
 */
import { z } from "zod";

/** What may happen to a unit, in the order in which it is told. */
export const UNIT_ACTIONS = ["stop", "skip", "reload", "restart", "start"] as const;
export type UnitAction = (typeof UNIT_ACTIONS)[number];

/** Of all lists together: a whole desktop has some hundred. */
const UNITS_MAX = 2_000;
/** systemd.unit(5) */
const NAME_LENGTH_MAX = 255;
const LINE_LENGTH_MAX = 16 * 1024;

const names = z.array(z.string().max(NAME_LENGTH_MAX)).max(UNITS_MAX);

export const unitChangesSchema = z.object({
  stop: names,
  /** Changed, and left as they run. */
  skip: names,
  reload: names,
  restart: names,
  start: names,
  /** systemd itself. */
  restartsSystemd: z.boolean(),
  /** Swap devices that would be turned off. */
  swapOff: names,
  /** How many more there are than these lists hold; the log has them. */
  omitted: z.number().int().nonnegative(),
});
export type UnitChanges = z.output<typeof unitChangesSchema>;

const TEXTS: readonly (readonly [text: string, list: UnitAction | "swapOff"])[] = [
  ["would stop the following units: ", "stop"],
  ["would NOT stop the following changed units: ", "skip"],
  ["would reload the following units: ", "reload"],
  ["would restart the following units: ", "restart"],
  ["would start the following units: ", "start"],
  ["would stop swap device: ", "swapOff"],
];
const RESTARTS_SYSTEMD = "would restart systemd";
/** What the program's output cuts a line with when it is longer than a log takes. */
const CUT = /\s*\[…\d+ more characters cut off\]$/;

/** @param lines of its output, in order */
export function parseUnitChanges(lines: Iterable<string>): UnitChanges {
  const lists = {
    ...{ stop: new Set<string>(), skip: new Set<string>(), reload: new Set<string>() },
    ...{ restart: new Set<string>(), start: new Set<string>(), swapOff: new Set<string>() },
  };
  let restartsSystemd = false;
  let omitted = 0;
  for (const line of lines) {
    restartsSystemd ||= line === RESTARTS_SYSTEMD;
    const [text, list] = TEXTS.find(([start]) => line.startsWith(start)) ?? [];
    if (text === undefined || list === undefined) continue;
    for (const name of splitNames(line.slice(text.length))) {
      const isFull = Object.values(lists).reduce((sum, { size }) => sum + size, 0) >= UNITS_MAX;
      if (isFull || name.length > NAME_LENGTH_MAX) omitted += 1;
      else lists[list].add(name);
    }
  }
  return {
    ...{ stop: [...lists.stop], skip: [...lists.skip], reload: [...lists.reload] },
    ...{ restart: [...lists.restart], start: [...lists.start], swapOff: [...lists.swapOff] },
    ...{ restartsSystemd, omitted },
  };
}

/** Whether a line is one that {@link parseUnitChanges} reads. */
export function isUnitChangeLine(line: string): boolean {
  return line === RESTARTS_SYSTEMD || TEXTS.some(([start]) => line.startsWith(start));
}

function splitNames(text: string): string[] {
  return text
    .slice(0, LINE_LENGTH_MAX)
    .replace(CUT, "")
    .split(", ")
    .map((name) => name.trim())
    .filter((name) => name !== "");
}
