/** JSON Schema of a tool's parameters: checked, and filled with made-up arguments. */

const TYPES = new Set(["object", "array", "string", "number", "integer", "boolean", "null"]);
const EXAMPLES = { date: "2026-01-31", "date-time": "2026-01-31T12:00:00Z", email: "ada@example.com" };

const isNumber = (value) => typeof value === "number";
const isCount = (value) => Number.isInteger(value) && value >= 0;
const isText = (value) => typeof value === "string";
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isList = (value) => Array.isArray(value) && value.length > 0;
/** Keywords of JSON Schema 2020-12 with the check of their value and its name. */
const KEYWORDS = {
  ...entries(["title", "description", "format", "$ref", "$comment"], isText, "a text"),
  ...entries(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"], isNumber, "a number"),
  ...entries(["minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"], isCount, "a whole number"),
  ...entries(["properties", "$defs", "definitions", "patternProperties"], isObject, "an object"),
  ...entries(["enum", "anyOf", "oneOf", "allOf", "prefixItems"], isList, "a list that is not empty"),
  required: [(value) => Array.isArray(value) && value.every(isText), "a list of texts"],
  pattern: [isPattern, "a regular expression"],
  uniqueItems: [(value) => typeof value === "boolean", "true or false"],
};

function entries(names, check, what) {
  return Object.fromEntries(names.map((name) => [name, [check, what]]));
}

/** A mistake; `at` is its place in the text, -1 if that is not known. */
export class SchemaMistake extends Error {
  constructor(sentence, at = -1) {
    super(sentence);
    this.at = at;
  }
}

/** Parse and check the parameters of a tool. Throws SchemaMistake. */
export function parsedSchema(text) {
  const whole = text.trim() || '{"type": "object", "properties": {}}';
  let schema;
  try {
    schema = JSON.parse(whole);
  } catch (error) {
    throw syntaxMistake(whole, error);
  }
  if (!isObject(schema) || schema.type !== "object") {
    throw new SchemaMistake('The parameters aren\'t a JSON Schema of "type": "object".', 0);
  }
  check(schema, whole, "The parameters");
  return schema;
}

/** A list of tools in OpenAI's form, of Realtime or of chat completions. Throws SchemaMistake. */
export function parsedTools(text) {
  let found;
  try {
    found = JSON.parse(text);
  } catch (error) {
    throw syntaxMistake(text, error);
  }
  const list = Array.isArray(found) ? found : (found?.tools ?? [found]);
  return list.map((one) => {
    const { name, description = "", parameters } = one?.function ?? one ?? {};
    if (!isText(name) || !/^[\w-]{1,64}$/.test(name)) {
      throw new SchemaMistake("A tool has no valid name: letters, digits, _ and -, at most 64.");
    }
    const schema = parsedSchema(parameters ? JSON.stringify(parameters) : "");
    return { name, description, parameters: schema, how: one.how ?? "canned", answer: one.answer ?? "" };
  });
}

/** The line and column (from 1) of a place in a text. */
export function lineAndColumn(text, at) {
  const before = text.slice(0, at).split("\n");
  return [before.length, before.at(-1).length + 1];
}

/** Made-up arguments that fit a schema. */
export function sampleOf(schema) {
  if (!isObject(schema)) return null;
  for (const value of [schema.default, schema.const, schema.examples?.[0], schema.enum?.[0]]) {
    if (value !== undefined) return value;
  }
  const [choice] = schema.anyOf ?? schema.oneOf ?? [];
  if (choice) return sampleOf(choice);
  switch ([schema.type].flat()[0]) {
    case "object":
      return Object.fromEntries(
        Object.entries(schema.properties ?? {}).map(([name, one]) => [name, sampleOf(one)]),
      );
    case "array":
      return schema.items ? [sampleOf(schema.items)] : [];
    case "integer":
    case "number":
      return schema.minimum ?? 1;
    case "boolean":
      return true;
    case "string":
      return EXAMPLES[schema.format] ?? "text";
    default:
      return null;
  }
}

function check(schema, text, place) {
  if (typeof schema === "boolean") return; // a schema that fits everything or nothing
  if (!isObject(schema)) throw new SchemaMistake(`${place}: a schema is an object.`);
  for (const [name, value] of Object.entries(schema)) {
    const [holds, what] = KEYWORDS[name] ?? [];
    if (holds && !holds(value)) {
      throw new SchemaMistake(`${place}: "${name}" must be ${what}.`, placeOf(text, `"${name}"`));
    }
  }
  for (const type of [schema.type ?? []].flat()) {
    if (!TYPES.has(type)) {
      const shown = JSON.stringify(type);
      throw new SchemaMistake(`JSON Schema has no type ${shown}.`, placeOf(text, shown));
    }
  }
  const properties = schema.properties ?? {};
  for (const name of schema.required ?? []) {
    if (!Object.hasOwn(properties, name)) {
      const shown = JSON.stringify(name);
      const sentence = `"required" names ${shown}, which isn't in "properties".`;
      throw new SchemaMistake(sentence, text.lastIndexOf(shown));
    }
  }
  for (const [name, one] of Object.entries(properties)) check(one, text, `"${name}"`);
  for (const one of [schema.items ?? []].flat()) check(one, text, "items");
  for (const name of ["anyOf", "oneOf", "allOf"]) {
    for (const one of schema[name] ?? []) check(one, text, `"${name}"`);
  }
}

function isPattern(value) {
  try {
    return isText(value) && Boolean(new RegExp(value, "u"));
  } catch {
    return false;
  }
}

function placeOf(text, quoted) {
  return text.indexOf(quoted);
}

/** Browsers name the place of a mistake in JSON by position, or by line and column. */
function syntaxMistake(text, { message }) {
  const [, line, column] = /line (\d+) column (\d+)/.exec(message) ?? [];
  const [, position] = /position (\d+)/.exec(message) ?? [];
  let at = /end of/i.test(message) ? text.length : -1;
  if (position !== undefined) at = Number(position);
  else if (line) at = text.split("\n").slice(0, line - 1).join("\n").length + Number(column) - (line > 1 ? 0 : 1);
  const where = at < 0 ? "" : ` (line ${lineAndColumn(text, at).join(", column ")})`;
  const reason = message.replace(/^JSON\.parse: /, "").replace(/,? (in JSON )?at .*$/s, "");
  return new SchemaMistake(`The parameters aren't valid JSON: ${reason}${where}.`, at);
}
