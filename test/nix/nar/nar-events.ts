/** Reads whole NARs for tests: as a list of events, or back into a tree. */
import type { NarHandler } from "../../../src/nix/nar/nar-grammar.ts";
import { createNarReader } from "../../../src/nix/nar/nar-reader.ts";
import { encodeNar, type NarTree } from "../../../src/nix/nar/nar-writer.ts";

export type NarEvent =
  | { readonly type: "directory"; readonly path: string }
  | { readonly type: "symlink"; readonly path: string; readonly target: string }
  | {
      readonly type: "regular";
      readonly path: string;
      readonly sizeBytes: number;
      readonly executable: boolean;
      readonly narOffset: number;
      /** All data chunks together, so that events do not depend on how the input was split. */
      readonly chunks: Uint8Array[];
    };

/** Appends what it is told to `events`. */
export function createEventRecorder(events: NarEvent[]): NarHandler {
  return {
    directory: (path) => events.push({ type: "directory", path }),
    symlink: (path, target) => events.push({ type: "symlink", path, target }),
    regular: (path, file) => events.push({ type: "regular", path, ...file, chunks: [] }),
    data: (chunk) => {
      const last = events.at(-1);
      if (last?.type !== "regular" || chunk.length === 0) {
        throw new Error("data without a file, or empty");
      }
      last.chunks.push(chunk.slice());
    },
  };
}

/** The events of a NAR that comes in these chunks. @throws what the reader throws */
export function readNarEvents(chunks: Iterable<Uint8Array>): NarEvent[] {
  const events: NarEvent[] = [];
  const reader = createNarReader(createEventRecorder(events));
  for (const chunk of chunks) {
    reader.push(chunk);
  }
  reader.finish();
  return events.map((event) => (event.type === "regular" ? { ...event, chunks: joinChunks(event.chunks) } : event));
}

/** The tree that the events describe. */
export function treeOfEvents(events: readonly NarEvent[]): NarTree {
  type MutableTree = Exclude<NarTree, { type: "directory" }> | { type: "directory"; entries: Map<string, MutableTree> };
  const directories = new Map<string, Map<string, MutableTree>>();
  const top = new Map<string, MutableTree>();
  for (const event of events) {
    const slash = event.path.lastIndexOf("/");
    const siblings = event.path === "" ? top : directories.get(slash === -1 ? "" : event.path.slice(0, slash));
    if (siblings === undefined) {
      throw new Error(`an entry came before its directory: ${event.path}`);
    }
    siblings.set(event.path.slice(slash + 1), nodeOf(event));
  }
  const root = top.get("");
  if (root === undefined) {
    throw new Error("no root");
  }
  return root;

  function nodeOf(event: NarEvent): MutableTree {
    switch (event.type) {
      case "directory": {
        const entries = new Map<string, MutableTree>();
        directories.set(event.path, entries);
        return { type: "directory", entries };
      }
      case "symlink":
        return { type: "symlink", target: event.target };
      case "regular":
        return { type: "regular", executable: event.executable, contents: event.chunks[0] ?? new Uint8Array() };
      default:
        return event satisfies never;
    }
  }
}

export function narOf(tree: NarTree): Uint8Array {
  return new Uint8Array(Buffer.concat([...encodeNar(tree)]));
}

function joinChunks(chunks: readonly Uint8Array[]): Uint8Array[] {
  return chunks.length === 0 ? [] : [new Uint8Array(Buffer.concat(chunks))];
}
