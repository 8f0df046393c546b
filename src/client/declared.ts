// The one place where a value from Python gets the type that the program declared for it. No check can tell whether the
// declaration is true: a Python value has no TypeScript type.

/** `value`, of the type that the caller of the public method declared. */
export function declared<T>(value: unknown): T;
export function declared(value: unknown): unknown {
  return value;
}
