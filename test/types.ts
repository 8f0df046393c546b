// Compiled, never run: the types that programs rely on. A wrong one fails `tsc -p test`.

import {
  type Argument,
  type Attribute,
  type Handle,
  kwargs,
  type Model,
  type PerplexityReport,
  type Reply,
  type Tensor,
  type TypedArray,
  type Untyped,
  type Value,
  Worker,
} from "marlin-torch";

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;

/** Compiles only if `Actual` is exactly `Expected`. */
function same<Expected>(): <Actual>(value: Actual & (Equal<Actual, Expected> extends true ? unknown : never)) => void {
  return () => {};
}

/** The sample of the design, to the letter. */
export async function designSample(signal: AbortSignal): Promise<void> {
  await using worker = await Worker.spawn();
  const F = worker.module("torch.nn.functional");
  const x = worker.tensor(new Float32Array(16 * 4096), [16, 4096]);
  const y = await F.gelu(x);
  const data = await y.data();
  same<Handle>()(y);
  same<TypedArray>()(data);

  const model = await worker.load("path/or/hub-id", {
    quantize: { method: "gptq", bits: 4, groupSize: 128 },
    onProgress: ({ done, total }) => console.log(done / total),
  });
  for await (const chunk of model.generate("def main", { maxNewTokens: 64, signal })) process.stdout.write(chunk.text);
  same<PerplexityReport>()(await model.perplexity("text"));
}

export async function quantization(model: Model): Promise<void> {
  const report = await model.quantize({ bits: 8, activation: "int8" });
  same<number>()(report.bits);
  same<number | null | undefined>()(model.info.quantization?.bits);
  // @ts-expect-error no such format
  await model.quantize({ activation: "int7" });
}

export async function modules(worker: Worker): Promise<void> {
  const math = worker.module("math");
  same<number>()(await math.sqrt<number>(2));
  same<Value>()(await math.pi);
  same<number>()(await math.attr<number>("pi"));

  const mine = worker.module<{
    tokens(text: string, limit?: number): number;
    make(): Handle;
    version: string;
    model: Handle;
  }>("my.module");
  same<number>()(await mine.tokens("some text"));
  await mine.tokens("some text", kwargs({ limit: 3 }));
  same<string>()(await mine.version);
  same<Handle>()(await mine.make());
  same<Handle>()(await mine.model);
  // @ts-expect-error tokens takes a string
  await mine.tokens(3);
  // @ts-expect-error no such member
  await mine.other;

  const named = worker.module<Untyped<"sqrt">>("math");
  same<Attribute>()(named.sqrt);
  // @ts-expect-error not one of the names
  named.cbrt;

  // Of a module that nothing is known of, any attribute may be missing, and the compiler says so.
  const unknown = worker.module("some.module");
  // @ts-expect-error possibly undefined
  unknown.anything();
  const reply: Reply<Handle> = unknown.attr("anything")();
  await reply;
  for await (const value of unknown.attr("items")) same<Value>()(value);
}

export async function handles(worker: Worker, handle: Handle): Promise<void> {
  const torch = worker.module("torch");
  same<Float32Array>()(await handle.data({ as: "float32" }));
  same<number[]>()(await handle.data<number[]>());
  same<Handle>()(await handle.mean());
  same<number>()(await handle.sum.with({ timeout: 100 })<number>());
  const args: Argument[] = [1, 2n, "three", null, [4, { five: 5 }], handle, torch.float16, new Uint8Array()];
  await handle.attr("to")(...args, kwargs({ dtype: torch.bfloat16, missing: undefined }));
  // @ts-expect-error functions do not travel
  await handle.attr("apply")(() => {});
  // A handle is resolved: awaiting it gives itself.
  same<Handle>()(await handle);
}

export function tensors(worker: Worker): void {
  same<Tensor<"float32">>()(worker.tensor(new Float32Array(4)));
  same<Tensor<"int64">>()(worker.tensor(new BigInt64Array(4), [2, 2]));
  same<Tensor<"float32">>()(worker.tensor([1, 2, 3]));
  const half = worker.tensor(new Float32Array(4), [4], { dtype: "bfloat16" });
  same<Tensor<"bfloat16">>()(half);
  const bits: Uint16Array = half.data;
  const large: BigInt64Array = worker.tensor([1], undefined, { dtype: "int64" }).data;
  console.log(bits, large);
  // @ts-expect-error no such dtype
  worker.tensor([1], [1], { dtype: "float8" });
}

export async function events(worker: Worker): Promise<void> {
  const off: () => void = worker.on("exit", ({ code, signal }) => console.log(code, signal));
  off();
  // @ts-expect-error no such event
  worker.on("close", () => {});
  same<number>()(await worker.scope(async ({ keep }) => keep(3)));
  for await (const item of worker.stream<number>("some.method")) same<number>()(item);
}
