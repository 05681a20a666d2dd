/** What agents sign at a login: that they hold their key, and that another one is to take its place. Pure. */

export type LoginClaim = {
  readonly nonce: string;
  readonly name: string;
  readonly proof?: { readonly deploymentId: string; readonly by: string } | undefined;
};

/** The bytes an agent signs to prove that it holds the key it names, and what this login proves. */
export function loginMessage({ nonce, name, proof }: LoginClaim): Uint8Array {
  const claim = proof === undefined ? "" : `proof ${proof.deploymentId} by ${proof.by}\n`;
  return new TextEncoder().encode(`nixdeploy agent login 1\n${nonce}\n${name}\n${claim}`);
}

export type RotationClaim = {
  readonly nonce: string;
  readonly name: string;
  /** As the hello writes them. */
  readonly publicKey: string;
  readonly newPublicKey: string;
};

/** What both keys sign when one is to take the place of the other. */
export function rotationMessage(claim: RotationClaim): Uint8Array {
  const { nonce, name, publicKey, newPublicKey } = claim;
  return new TextEncoder().encode(`nixdeploy agent key 1\n${nonce}\n${name}\n${publicKey}\n${newPublicKey}\n`);
}
