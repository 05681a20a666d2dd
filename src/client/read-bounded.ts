/** Reads what somebody else decides the length of, but never more than fits: files, pipes, devices, answers. */

/** @returns null when there is more than `bytesMax`; the rest is left unread. @throws as `source` does */
export async function readBounded(source: AsyncIterable<Uint8Array>, bytesMax: number): Promise<Buffer | null> {
  const chunks: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const chunk of source) {
    sizeBytes += chunk.length;
    if (sizeBytes > bytesMax) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
