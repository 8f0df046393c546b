// Call Python: any module, attribute and object of the worker, as if it were here.

import { kwargs, Worker } from "marlin-torch";

await using worker = await Worker.spawn();
console.log(`Python ${worker.info.python}, torch ${worker.info.torch}`);

const math = worker.module("math");
console.log(await math.sqrt<number>(2), await math.pi);

// Numbers and strings come by value. Everything else stays in the worker, and a handle stands for it.
const torch = worker.module("torch");
const range = await torch.arange(6, kwargs({ dtype: torch.float32 }));
const table = await range.reshape(2, 3);
console.log(String(table)); // asks nothing of the worker
console.log(await table.data()); // its elements, without a copy
console.log(await (await table.sum()).item<number>());

// Iterate what Python can iterate.
for await (const row of table) console.log(String(row));
