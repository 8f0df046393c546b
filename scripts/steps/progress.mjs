// Shows what is running: one live line on a terminal, plain lines with a heartbeat elsewhere.
// Writes to stderr only: stdout belongs to the command that set-up prepares.

const FRAMES = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
const REDRAW_MS = 100;
const HEARTBEAT_MS = 10_000;
const FALLBACK_COLUMNS = 80;

/**
 * Begins to show a running step.
 * @param {string} label what is done, e.g. "Installing Node packages"
 * @param {{ stream?: NodeJS.WriteStream, heartbeatMs?: number }} [options]
 */
export function showStep(label, { stream = process.stderr, heartbeatMs = HEARTBEAT_MS } = {}) {
  const began = performance.now();
  const elapsed = () => formatSeconds((performance.now() - began) / 1000);
  const live = stream.isTTY === true;
  let lastLine = "";
  let frame = 0;

  const redraw = () => {
    frame = (frame + 1) % FRAMES.length;
    const text = `${FRAMES[frame]} ${label}  ${elapsed()}${lastLine === "" ? "" : `  ${lastLine}`}`;
    stream.write(`\r\x1b[2K${truncate(text, (stream.columns ?? FALLBACK_COLUMNS) - 1)}`);
  };
  const beat = () =>
    stream.write(`  ... ${label}, ${elapsed()} so far${lastLine === "" ? "" : `: ${truncate(lastLine, 100)}`}\n`);

  if (live) redraw();
  else stream.write(`- ${label} ...\n`);
  const timer = live ? setInterval(redraw, REDRAW_MS) : setInterval(beat, heartbeatMs);
  timer.unref();

  const end = (mark, note) => {
    clearInterval(timer);
    stream.write(`${live ? "\r\x1b[2K" : ""}${mark} ${label}  ${elapsed()}${note === "" ? "" : `  ${note}`}\n`);
  };
  return {
    /** The last line of output of the step; shown beside the elapsed time. */
    update(line) {
      lastLine = line;
    },
    done(note = "") {
      end("✓", note);
    },
    fail(note = "") {
      end("✗", note);
    },
  };
}

/** `3.2 s`, `48 s`, `2 min 05 s`. */
export function formatSeconds(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
}

function truncate(text, columns) {
  const characters = [...text];
  return characters.length <= columns ? text : `${characters.slice(0, Math.max(0, columns - 1)).join("")}…`;
}
