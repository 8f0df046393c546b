// Tensors across the border, against a real worker with shared memory.

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Tensor } from "../../src/client/tensor.ts";
import { type Handle, kwargs, type Untyped } from "../../src/client/types.ts";
import type { Worker } from "../../src/client/worker.ts";
import { DTYPES, type DType } from "../../src/dtype.ts";
import { ArenaFullError, HandleDisposedError, InvalidArgumentError, PythonError } from "../../src/errors.ts";
import { MEBIBYTE, spawnWorker } from "./spawn.ts";

let worker: Worker;
beforeAll(async () => {
  worker = await spawnWorker({ arenaBytes: 16 * MEBIBYTE });
});
afterAll(() => worker.close());

const fixture = (of = worker) =>
  of.module<Untyped<"address" | "arrays" | "describe" | "echo" | "fill" | "total">>("marlin_fixture");

/** Values that every dtype holds. */
const VALUES = [0, 1, 1, 0];

describe("a tensor of this program", () => {
  test.each(DTYPES)("of %s is seen by Python with its dtype, shape and values", async (dtype: DType) => {
    const tensor = worker.tensor(VALUES, [2, 2], { dtype });
    const seen = await fixture().describe(tensor);
    expect(await seen.data()).toEqual([`torch.${dtype}`, [2, 2], VALUES]);
  });

  test.each(DTYPES)("of %s comes back as the typed array it was", async (dtype: DType) => {
    const tensor = worker.tensor(VALUES, [4], { dtype });
    const back = await (await fixture().echo(tensor)).data();
    expect(back).toEqual(tensor.data);
  });

  test.each([[[]], [[0]], [[3, 0, 2]], [[1, 1, 1, 1, 1, 1, 1, 1]]])("of shape %j arrives", async (shape) => {
    const count = shape.reduce((product, size) => product * size, 1);
    const seen = await fixture().describe(worker.tensor(new Float32Array(count), shape));
    expect(await seen.data()).toEqual(["torch.float32", shape, new Array(count).fill(0)]);
  });

  test("shares its memory: writes of either side are seen by the other", async () => {
    const tensor = worker.tensor(new Float32Array(1000));
    const total = () => fixture().total<number>(tensor);
    tensor.data[999] = 5;
    expect(await total()).toBe(5);
    await fixture().fill(tensor, 2);
    expect(tensor.data[0]).toBe(2);
    tensor.data.fill(3);
    expect(await total()).toBe(3000);
  });

  test("stays alive in Python after its disposal here, and its memory is free when both are done", async () => {
    // Of its own: memory that other tests dropped is collected at any time.
    await using own = await spawnWorker();
    const used = () => own.stats().then(({ arena }) => arena?.used);
    const tensor = own.tensor(new Float32Array(100_000).fill(1));
    const handle = await fixture(own).echo(tensor);
    tensor.dispose();
    tensor.dispose();
    expect(await fixture(own).total<number>(handle)).toBe(100_000);
    expect(await used()).toBeGreaterThanOrEqual(400_000);
    handle.dispose();
    await settled(async () => (await used()) === 0);
  });

  test("says that it was disposed when it is used after that", async () => {
    const tensor = worker.tensor([1, 2]);
    tensor.dispose();
    expect(() => tensor.data).toThrow(HandleDisposedError);
    expect(String(tensor)).toBe("Tensor(float32 [2], disposed)");
    await expect(fixture().total(tensor)).rejects.toThrow(HandleDisposedError);
  });

  test("ends with its scope, unless it is returned", async () => {
    const [inner, kept] = await worker.scope(async () => {
      const inner = worker.tensor([1]);
      return [() => inner, worker.tensor([2])] as const;
    });
    expect(inner().isDisposed).toBe(true);
    expect(kept.isDisposed).toBe(false);
    kept.dispose();
  });

  test("converts float32 to 16-bit floats and back, rounding to nearest even", async () => {
    const values = new Float32Array([1, -0.1, 65504, 1e-8, Number.NaN, Number.POSITIVE_INFINITY]);
    for (const dtype of ["float16", "bfloat16"] as const) {
      const tensor = worker.tensor(values, [6], { dtype });
      const torch = worker.module("torch");
      const theirs = await (await torch.tensor([...values].slice(0, 4), kwargs({ dtype: torch.attr(dtype) }))).data();
      expect(tensor.data.slice(0, 4)).toEqual(theirs);
      expect(tensor.float32()[4]).toBeNaN();
      expect(await (await fixture().echo(tensor)).data({ as: "float32" })).toEqual(tensor.float32());
    }
  });

  test("holds 64-bit integers exactly", async () => {
    const tensor = worker.tensor(new BigInt64Array([2n ** 62n, -1n]));
    expect(await (await fixture().echo(tensor)).data<BigInt64Array>()).toEqual(tensor.data);
  });
});

describe("a tensor of the worker", () => {
  test("is viewed without a copy: writes here are seen there", async () => {
    const handle = await worker.empty("float32", [2000]);
    const view = await handle.data<Float32Array>();
    view.fill(4);
    expect(await fixture().total<number>(handle)).toBe(8000);
    await fixture().fill(handle, 1);
    expect(view[1999]).toBe(1);
  });

  test("is copied to this program's memory on request", async () => {
    const handle = await worker.empty("float32", [2000]);
    const copy = await handle.data<Float32Array>({ copy: true });
    copy.fill(9);
    await fixture().fill(handle, 1);
    expect(copy[0]).toBe(9);
  });

  test("that is this program's own memory is viewed as that", async () => {
    const tensor = worker.tensor(new Float32Array(2000));
    const same = await worker.module("torch").attr("relu_")(tensor);
    const view = await same.data<Float32Array>();
    view[7] = 70;
    expect(tensor.data[7]).toBe(70);
    tensor.dispose();
    same.dispose();
    await worker.ping(); // the worker has given its references back
    // The view keeps the block: what is made now lies elsewhere.
    for (const other of [1, 2, 3].map(() => worker.tensor(new Float32Array(2000)))) other.dispose();
    expect(view[7]).toBe(70);
  });

  test("arrives with others inside of plain values, and can be sent back", async () => {
    const { torch, numpy, list } = await (await fixture().arrays()).data<{
      torch: Tensor;
      numpy: Tensor;
      list: Tensor[];
    }>();
    expect([torch.dtype, torch.shape, torch.data]).toEqual(["float32", [2, 3], new Float32Array([0, 1, 2, 3, 4, 5])]);
    expect([numpy.dtype, numpy.data]).toEqual(["int64", new BigInt64Array([0n, 1n, 2n])]);
    expect(list[0]?.data).toEqual(new Uint8Array([1, 0]));
    expect(await fixture().total<number>(torch)).toBe(15);
  });

  test("that is not contiguous is made so", async () => {
    const tensor = worker.tensor([1, 2, 3, 4, 5, 6], [2, 3]);
    const transposed = await (await fixture().echo(tensor)).transpose(0, 1);
    expect(await transposed.data()).toEqual(new Float32Array([1, 4, 2, 5, 3, 6]));
  });

  test("passed in place keeps its address", async () => {
    const handle = await worker.empty("uint8", [4096]);
    const [first, second] = [await fixture().address<number>(handle), await fixture().address<number>(handle)];
    expect(first).toBe(second);
  });
});

describe("the limits of shared memory", () => {
  test("a full partition of this program is ArenaFullError with sizes, and disposal makes room", async () => {
    const size = 3 * MEBIBYTE;
    const tensors = [worker.tensor(new Uint8Array(size)), worker.tensor(new Uint8Array(size))];
    expect(() => worker.tensor(new Uint8Array(size))).toThrow(ArenaFullError);
    expect(() => worker.tensor(new Uint8Array(size))).toThrow(
      expect.objectContaining({ details: expect.objectContaining({ requested: size, partition: "client" }) }),
    );
    for (const tensor of tensors) tensor.dispose();
    worker.tensor(new Uint8Array(size)).dispose();
  });

  test("a full partition of the worker is ArenaFullError, and the worker lives on", async () => {
    const handles: Handle[] = [];
    const fillUp = async () => {
      for (;;) handles.push(await worker.empty("uint8", [MEBIBYTE]));
    };
    await expect(fillUp()).rejects.toMatchObject({ code: "arena_full", details: { partition: "worker" } });
    expect(handles.length).toBeGreaterThan(3);
    for (const handle of handles) handle.dispose();
    (await worker.empty("uint8", [MEBIBYTE])).dispose();
  });

  test.each<[string, () => unknown]>([
    ["a shape that does not fit the data", () => worker.tensor([1, 2, 3], [2, 2])],
    ["a negative size", () => worker.tensor([], [-1])],
    ["a fraction of a size", () => worker.tensor([1], [1.5])],
    ["too many dimensions", () => worker.tensor([1], new Array(9).fill(1))],
    ["an overflow of the size", () => worker.tensor([1], [2 ** 40, 2 ** 40])],
    ["an unknown option", () => Reflect.apply(worker.tensor, worker, [[1], [1], { type: "int8" }])],
    ["an unknown dtype", () => Reflect.apply(worker.tensor, worker, [[1], [1], { dtype: "float8" }])],
    ["data that is none", () => Reflect.apply(worker.tensor, worker, ["data"])],
    ["no data", () => Reflect.apply(worker.tensor, worker, [undefined, [1], { dtype: "int8" }])],
    ["a shape that is none", () => Reflect.apply(worker.tensor, worker, [[1], 1])],
    ["a value that the dtype does not hold", () => worker.tensor([300], [1], { dtype: "int8" })],
  ])("%s is InvalidArgumentError and takes no memory", async (_, make) => {
    const used = () => worker.stats().then(({ arena }) => arena?.used ?? Number.NaN);
    const before = await used();
    expect(make).toThrow(InvalidArgumentError);
    // Less, if garbage of other tests was collected meanwhile.
    expect(await used()).toBeLessThanOrEqual(before);
  });

  test("a wrong shape or dtype in Python is Python's error, and the worker lives on", async () => {
    const torch = worker.module("torch");
    const [a, b] = [worker.tensor([1, 2], [1, 2]), worker.tensor([1, 2, 3], [1, 3])];
    await expect(torch.matmul(a, b)).rejects.toThrow(PythonError);
    await expect(torch.matmul(a, worker.tensor([1, 2], [2, 1], { dtype: "int64" }))).rejects.toThrow(/dtype/);
    expect(await fixture().total<number>(a)).toBe(3);
  });
});

test("a tensor of another worker travels as bytes", async () => {
  await using other = await spawnWorker({ arenaBytes: MEBIBYTE });
  const tensor = other.tensor([1, 2, 3]);
  expect(await fixture().total<number>(tensor)).toBe(6);
  expect(tensor).toBeInstanceOf(Tensor);
});

test("a tensor of another worker may be disposed of right after the call, and its memory used again", async () => {
  await using other = await spawnWorker({ arenaBytes: 16 * MEBIBYTE });
  const count = MEBIBYTE;
  for (let i = 0; i < 20; i++) {
    const tensor = other.tensor(new Float32Array(count).fill(1));
    const sum = fixture().total<number>(tensor);
    tensor.dispose();
    using _ = other.tensor(new Float32Array(count).fill(7)); // in the same place
    expect(await sum).toBe(count);
  }
});

/** Waits for something that the worker does in its own time. */
async function settled(check: () => Promise<boolean>): Promise<void> {
  await expect.poll(check, { timeout: 30_000 }).toBe(true);
}
