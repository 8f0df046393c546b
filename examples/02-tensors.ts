// Share memory with Python: tensors of either side are seen by the other without a copy.

import { Worker } from "marlin-torch";

await using worker = await Worker.spawn();
const torch = worker.module("torch");

// Made here, read there: no bytes travel.
const x = worker.tensor(new Float32Array([1, 2, 3, 4]), [2, 2]);
x.data[0] = 10;
const total = await (await torch.attr("sum")(x)).item<number>();
console.log(`sum ${total}`);

// Made there, read here: the array is a view of the worker's memory.
const y = await worker.empty("float32", [4]);
await y.attr("fill_")(7);
console.log(await y.data());

// 16-bit floats are raw bits in a Uint16Array, and convert both ways.
const half = worker.tensor(new Float32Array([0.1, 0.2]), [2], { dtype: "bfloat16" });
console.log(half.data, half.float32());
const doubled = await torch.attr("add")(half, half);
console.log(await doubled.data({ as: "float32" }));

// What is made in a scope ends with it.
const mean = await worker.scope(async () => {
  const noise = await torch.randn(1000);
  const average = await noise.mean();
  return average.item<number>();
});
console.log(`mean ${mean.toFixed(1)}`);
