// Reads what `npm start -- --json` printed, and refuses a demo that ran but did not show what it is for.

import fs from "node:fs";

/** The promise of the bundled model: 4 bits cost it less than 5 % of perplexity. */
const MOST_PERPLEXITY = 1.05;
/** 4-bit Linears beside an embedding in full precision: anything below this was not quantized. */
const LEAST_SHRINKING = 2;

const { before, after, kernel, generated } = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const expectations = [
  ["perplexity in 4 bits within 5 %", after.perplexity / before.perplexity, (ratio) => ratio < MOST_PERPLEXITY],
  ["weights at least 2x smaller", before.weightBytes / after.weightBytes, (ratio) => ratio > LEAST_SHRINKING],
  ["tokens per second in full precision", before.tokensPerSecond, (rate) => rate > 0],
  ["tokens per second in 4 bits", after.tokensPerSecond, (rate) => rate > 0],
  ["generated text", generated.text, (text) => text.trim() !== ""],
  ["the kernel that ran", kernel.kernel, (name) => typeof name === "string"],
];
for (const [what, value, holds] of expectations) {
  const isMet = holds(value);
  console.log(`${isMet ? "ok    " : "FAILED"}  ${what}: ${JSON.stringify(value)}`);
  if (!isMet) process.exitCode = 1;
}
