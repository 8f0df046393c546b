import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: "test/build.ts",
    // Importing torch takes seconds, and more of them where several workers start at once.
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // A second, vitest's own choice, is less than a start of a process takes on a busy machine.
    expect: { poll: { timeout: 50_000 } },
  },
});
