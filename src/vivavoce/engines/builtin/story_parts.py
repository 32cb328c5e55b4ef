"""The stock that stories are made of. Placeholders: one, name, place, treasure, friend, where."""

HEROES = ("fox", "lighthouse keeper", "small robot", "baker", "hedgehog", "clockmaker", "whale")
NAMES = ("Milo", "Tessa", "Oren", "Pia", "Juno", "Bram", "Lotte", "Sami")
PLACES = (
    "the edge of the forest",
    "the old harbour",
    "the top of the hill",
    "the frozen lake",
    "the night market",
    "the railway bridge",
    "the empty castle",
    "the garden behind the mill",
    "the island of gulls",
    "the valley of echoes",
    "the library cellar",
    "the windy pass",
)
FRIENDS = (
    "an owl with a torn map",
    "a girl on a red bicycle",
    "a very polite bear",
    "a sailor who feared water",
    "a goat with a silver bell",
    "two quarrelling crows",
    "a gardener who spoke to stones",
    "a boy carrying a lantern",
    "a tailor without thread",
    "an old woman selling clouds",
    "a mouse in a blue coat",
    "a giant with a cold",
    "a postman who had lost his way",
)
TREASURES = (
    "a key that fitted no door",
    "the last song of summer",
    "a lamp that never went out",
    "a bell that nobody had heard",
    "a letter without a name on it",
    "the missing piece of the moon",
)
OPENINGS = (
    "Once there was {one}.",
    "Once there was {one} called {name}.",
    "Once upon a time there was {one} called {name}, who lived near {place}.",
    "Once upon a time there was {one} called {name}, who lived near {place}. All {name} ever"
    " wished for was to find {treasure}.",
    "Once upon a time there was {one} called {name}, who lived near {place}. All {name} ever"
    " wished for was to find {treasure}. So one morning, before anybody else was awake, {name}"
    " packed some bread and an apple, closed the door softly and set out.",
)
CLOSINGS = (
    "The end.",
    "And all was well. The end.",
    "In the evening {name} came home, tired and glad. The end.",
    "At last {name} found {treasure}, and it had been close to home all along. The end.",
    "At last {name} found {treasure}, and it had been close to home all along. From then on the"
    " door stood open, and whoever came by was given soup and a story. The end.",
)
FILLERS = (
    "{name} smiled.",
    "{name} walked on.",
    "The wind was still.",
    "Nobody said a word.",
    "Far away a dog barked.",
    "Then the stars came out again.",
    "{name} took a breath and went on.",
    "The road was long, but it was friendly.",
    "{name} counted the stars and soon fell asleep.",
    "In the morning there was mist on the fields.",
    "{name} hummed a little song to keep the night away.",
    "It rained a little, and then the sun came back again.",
    "{name} thought of home, and of the soup on the stove there.",
    "{name} sat down on a warm stone and ate half of the apple.",
    "A small boat went by, and the people in it waved for a while.",
)
EPISODES: dict[str, tuple[str, ...]] = {
    "stranger": (
        "At {where}, {name} met {friend}.",
        "They looked at each other for a while, and neither knew what to say.",
        "Have you seen {treasure}, asked {name} at last.",
        "I have not, came the answer, but I have heard of it, and it is not far.",
        "They shared what bread there was, and it tasted better than it had alone.",
    ),
    "storm": (
        "That night a storm came down on {where}.",
        "The rain drummed so loudly that {name} could not hear a single thought.",
        "There, under a crooked tree, sat {friend}.",
        "Together they held on to a branch and told each other jokes until the thunder gave up.",
        "In the morning the whole world smelled new.",
    ),
    "riddle": (
        "The way to {where} was guarded by {friend}.",
        "You may pass, said the guard, if you can tell me what grows when you give it away.",
        "{name} thought about it until the shadows were long.",
        "Kindness, said {name}, and the gate swung open without a sound.",
        "Behind it the path was covered with yellow leaves.",
    ),
    "lost": (
        "Near {where} the path split in three, and {name} took the wrong one.",
        "It went round and round and ended where it had begun.",
        "Only then did {name} notice {friend}, who had been watching all the time.",
        "The third path is the right one, because nobody ever tries it, said a quiet voice.",
        "{name} tried it, and it was so.",
    ),
    "help": (
        "A cry for help came from {where}.",
        "It was {friend}, caught between two rocks and rather cross about it.",
        "{name} pulled and pushed, and pushed and pulled, and nothing moved.",
        "Then {name} tickled instead, and out they both rolled, laughing, into the grass.",
        "That is how a journey gets a second pair of eyes.",
    ),
    "feast": (
        "At {where} there was a feast with lanterns and a fiddle.",
        "Everybody danced, even {friend}.",
        "{name} danced as well, though nobody had ever shown {name} how.",
        "When the music stopped, somebody whispered a hint about {treasure}.",
        "Follow the river until it sings, the whisper said, and then turn left.",
    ),
    "trade": (
        "On the road to {where}, {name} ran into {friend}.",
        "I will give you good advice for that apple, came the offer.",
        "{name} found this a fair price and handed the apple over.",
        "Here is the advice: never walk faster than you can look.",
        "So {name} walked slowly, and saw a small light which had been there all along.",
    ),
    "doubt": (
        "For three days nothing happened at all, and {name} began to doubt.",
        "Perhaps there was no such thing as {treasure}.",
        "But at {where}, scratched into a stone, there was an arrow.",
        "It had been left by {friend}, who came out of hiding and pointed the same way.",
        "{name} laughed out loud, and the doubt flew off like a startled bird.",
    ),
}
