/** What a server gave where something else was asked for: a sentence for each. */
export function differences(settings, session) {
  const given = session.served_by ?? {}; // the session itself says what was asked for
  return ["model", "voice"]
    .filter((kind) => settings[kind] && given[kind] && settings[kind] !== given[kind])
    .map((kind) => `There is no ${kind} “${settings[kind]}” here; “${given[kind]}” stands in.`);
}
