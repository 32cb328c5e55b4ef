/** Keys: a short-lived one for every connection, made with the real one where there is one. */
import { sentenceOf } from "./endings.js";

/** The server wants a key, or another one. */
export class KeyNeeded extends Error {}

/** The server says no, and saying it again does not help. */
export class Refused extends Error {}

/** A short-lived key, or "" where the server makes none and may need none. */
export async function shortLivedKey(base, key) {
  const headers = { "Content-Type": "application/json" };
  if (key) headers.Authorization = `Bearer ${key}`;
  const url = new URL("v1/realtime/client_secrets", base);
  const answer = await fetch(url, { method: "POST", headers, body: "{}" });
  if (answer.ok) return (await answer.json()).value;
  if (answer.status === 404 || answer.status === 405) return key;
  throw await problem(answer);
}

/** The error that an answer stands for. */
export async function problem(answer) {
  const sentence = await answer
    .json()
    .then((body) => sentenceOf(body.error.message))
    .catch(() => `The server answered with ${answer.status}.`);
  if (answer.status === 401) return new KeyNeeded(sentence);
  return answer.status < 500 && answer.status !== 429 ? new Refused(sentence) : new Error(sentence);
}

/** A list that the server keeps, such as v1/models; [] where it keeps none. Throws KeyNeeded. */
export async function listed(base, path, key) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const answer = await fetch(new URL(path, base), { headers });
  if (answer.status === 401) throw new KeyNeeded("This server needs a key.");
  return answer.ok ? (await answer.json()).data ?? [] : [];
}
