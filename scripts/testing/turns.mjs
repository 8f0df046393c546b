// Keeps apart what several speakers say at the same time: the first of them is heard at once, the others in their turn.

/**
 * @param {(text: string | Buffer) => void} write
 * @returns {() => { write: (text: string | Buffer) => void, end: () => void }} the next speaker; whoever comes first is
 *   heard first, and until its end
 */
export function takeTurns(write) {
  const speakers = [];
  return () => {
    const speaker = { held: [], hasEnded: false };
    speakers.push(speaker);
    return {
      write(text) {
        if (speakers[0] === speaker) write(text);
        else speaker.held.push(text);
      },
      end() {
        speaker.hasEnded = true;
        while (speakers[0]?.hasEnded) {
          speakers.shift();
          for (const text of speakers[0]?.held.splice(0) ?? []) write(text);
        }
      },
    };
  };
}
