// Numbers and tables as people read them. Pure: knows no terminal and no command.

const KIB = 1024;
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"] as const;

/** `512 B`, `6.9 MiB`, `1.2 GiB`. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= KIB && unit < UNITS.length - 1) {
    value /= KIB;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${UNITS[unit]}`;
}

/** `6.3 M`, `8.0 B`: a count of parameters. */
export function formatCount(count: number): string {
  const million = 1e6;
  const billion = 1e9;
  if (count >= billion) return `${(count / billion).toFixed(1)} B`;
  if (count >= million) return `${(count / million).toFixed(1)} M`;
  return String(count);
}

/** `+2.4 %`, `-0.1 %`: how much `after` is above `before`. */
export function formatChange(before: number, after: number): string {
  const percent = (after / before - 1) * 100;
  return `${percent >= 0 ? "+" : ""}${percent.toFixed(1)} %`;
}

/** `3.5x`. */
export function formatRatio(ratio: number): string {
  return `${ratio.toFixed(2)}x`;
}

/** `0.4 s`, `12.3 s`. */
export function formatSeconds(seconds: number): string {
  return `${seconds.toFixed(1)} s`;
}

/** A bar of `width` cells, `done` of `total` filled. */
export function formatBar(done: number, total: number, width = 24): string {
  const share = total > 0 ? Math.min(1, Math.max(0, done / total)) : 0;
  const filled = Math.round(share * width);
  return `${"█".repeat(filled)}${"░".repeat(width - filled)} ${done}/${total}`;
}

/**
 * Rows in columns: the first column left-aligned, the others right-aligned, two spaces between.
 *
 * @param rows each with the same number of cells
 */
export function formatTable(rows: readonly (readonly string[])[]): string {
  const columns = Math.max(0, ...rows.map((row) => row.length));
  const widths = Array.from({ length: columns }, (_, column) =>
    Math.max(...rows.map((row) => (row[column] ?? "").length)),
  );
  const lines = rows.map((row) =>
    widths
      .map((width, column) => {
        const cell = row[column] ?? "";
        return column === 0 ? cell.padEnd(width) : cell.padStart(width);
      })
      .join("  ")
      .trimEnd(),
  );
  return lines.join("\n");
}
