// What every command is given, and the steps that nearly all begin with: a worker, and a model in it.

import path from "node:path";
import type { LoadOptions, Model, ModelInfo } from "../client/model.ts";
import { Worker } from "../client/worker.ts";
import { PACKAGE_ROOT } from "../worker-process/find-python.ts";
import { formatCount } from "./format.ts";
import type { Output, Step } from "./output.ts";

/** Surroundings of a command; injected, so that a test decides where output goes and when an interrupt comes. */
export interface Context {
  readonly output: Output;
  /** Fires when the user interrupts. */
  readonly signal: AbortSignal;
}

/** Options of every command that starts a worker. */
export interface WorkerFlags {
  /** The Python that runs the worker; else the client's usual search. */
  readonly python?: string;
  /** Threads that torch may use; else its own choice. */
  readonly threads?: number;
}

/** The model that the package brings, with its held-out text. */
export const BUNDLED_MODEL: string = path.join(PACKAGE_ROOT, "models", "stdlib-6m");

/** Starts a worker, showing that it takes a moment. */
export async function startWorker({ output, signal }: Context, { python, threads }: WorkerFlags): Promise<Worker> {
  return await output.during("Starting the Python worker", async (step) => {
    const worker = await Worker.spawn({ python, threads, signal });
    step.note(`Python ${worker.info.python}, torch ${worker.info.torch}`);
    return worker;
  });
}

/** Loads a model, showing how far it is. */
export async function loadModel(
  { output, signal }: Context,
  worker: Worker,
  source: string,
  options: Omit<LoadOptions, "onProgress" | "signal"> = {},
): Promise<Model> {
  return await output.during(`Loading ${source}`, async (step) => {
    const model = await worker.load(source, { ...options, onProgress: report(step), signal });
    step.note(describeModel(model.info));
    return model;
  });
}

/** `LlamaForCausalLM, 6.3 M parameters, float32`. */
export function describeModel({ architecture, parameters, dtype }: ModelInfo): string {
  return `${architecture}, ${formatCount(parameters)} parameters, ${dtype}`;
}

/** Passes the worker's progress on to the user. */
export function report(step: Step): (progress: { done: number; total: number; text?: string | undefined }) => void {
  return ({ done, total, text }) => step.update(done, total, text);
}
