/**
 * Large frames are read a few at a time. A frame as text is what the network brought; read, checked and ready to be
 * stored it is ten times as much, and two hundred agents that report at once would have that of all of them.
 */
export type Intake = {
  /** Begins when there is room for so many characters, in the order of the calls. @throws what `work` throws */
  run(characters: number, work: () => Promise<void>): Promise<void>;
};

/** What is read at the same time; one that is larger is read alone. */
const CHARACTERS_MAX = 4 * 1024 * 1024;
/** These are always read: pings, phases, outcomes. */
export const SMALL_CHARACTERS = 16 * 1024;

export function createIntake(charactersMax = CHARACTERS_MAX): Intake {
  const waiting: { readonly characters: number; readonly begin: () => void }[] = [];
  let reading = 0;
  const beginSome = () => {
    for (let next = waiting[0]; next !== undefined; next = waiting[0]) {
      if (reading > 0 && reading + next.characters > charactersMax) return;
      waiting.shift();
      reading += next.characters;
      next.begin();
    }
  };
  return {
    async run(characters, work) {
      if (characters <= SMALL_CHARACTERS) return await work();
      await new Promise<void>((begin) => {
        waiting.push({ characters, begin });
        beginSome();
      });
      try {
        await work();
      } finally {
        reading -= characters;
        beginSome();
      }
    },
  };
}
