"""Words that tell whether someone who pauses has finished, language by language. Data only."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Entries are lower-case; those of several words are split at blanks, the last word last."""

    fillers: frozenset[str]
    """A speaker who says one is thinking."""
    dangling: frozenset[str]
    """Endings after which more must come."""
    closings: frozenset[str]
    """Endings after which nothing more must come. The longer ending wins, then the dangling one."""
    answers: frozenset[str]
    """Whole turns."""
    leads: frozenset[str]
    """Words that may stand before a question or a command and change nothing."""
    questions: frozenset[str]
    """First words of questions."""
    commands: frozenset[str]
    """First words of commands."""
    conditions: frozenset[str]
    """First words of clauses that promise a second one."""
    digits: frozenset[str]
    """Words for digits, and those said between them."""
    stranded: frozenset[str] = frozenset()
    """Prepositions that end a question, if one of `supports` or an -ing stands before them."""
    supports: frozenset[str] = frozenset()
    particles: frozenset[str] = frozenset()
    """Prepositions that end a command."""


def _set(*lines: str) -> frozenset[str]:
    """Entries, parted by commas."""
    return frozenset(entry.strip() for line in lines for entry in line.split(",") if entry.strip())


ENGLISH = Lexicon(
    fillers=_set("um, umm, uhm, uh, uhh, er, err, erm, hm, hmm, hmmm, mm, mmm, ah, eh, huh"),
    dangling=_set(
        "and, but, or, nor, because, 'cause, cuz, cos, although, if, unless, until, till, than",
        "which, whose, whether, as, so, when, while, whereas, except, plus, versus, also, then i",
        "of, to, in, on, at, for, from, with, by, about, into, onto, under, between, through",
        "during, without, within, against, toward, towards, via, per, upon, among, like, near",
        "behind, beside, next to, dot, double, triple, number, the, a, an, my, your, his, their",
        "our, its, every, each, another, very, such, both of, i, we, he, she, they, i'm, i've",
        "i'll, i'd, we're, we've, we'll, we'd, you're, you've, you'll, you'd, he's, she's, it's",
        "they're, they've, they'll, that's, there's, here's, what's, where's, who's, how's, let's",
        "it'll, that'll, is, are, was, were, am, be, been, being, has, have, had, will, would",
        "could, should, might, must, shall, gonna, wanna, gotta, going to, want, need, wants",
        "needs, trying, maybe i, my name is, i would like, i'd like, we'd like, we would like",
        "i was wondering, i mean, i think, i thought, i believe, i feel, i guess i, i was, i said",
        "i wonder, you know, i know that, think that, say that, said that, sure that, means that",
        "so that, is that i, can you, could you, would you, will you, do you, did you, don't you",
        "can i, could i, may i, should i, shall we, can we, could we, is there, are there",
        "there is, there are, let me, can you please, could you please, would you please",
        "will you please, please can you, tell me, show me, give me, remind me, ask me, send me",
        "get me, find me, help me to, tell me about, how about, what about, what if, how do",
        "how much, how many, what kind, sort of, kind of, such as, for example, for instance",
        "and then, first of all, the thing, the problem, the first, the second, the last",
        "the next, at least, at the, more than, less than, instead of, because of, a lot of",
        "one of, out of, as soon as, as well as, either, neither of, whatever, wherever, not only",
        "let me see, let me think, let's see, let me check, hold on, hang on, wait, just a second",
        "one second, one moment, just a moment, give me a second, give me a moment, please wait",
        "in order, would like, actually i, well",
    ),
    closings=_set(
        "please, thank you, thanks, thank you very much, thank you so much, thanks a lot, goodbye",
        "bye, bye bye, good night, see you, see you later, that's all, that is all, that's it",
        "that is it, that's right, that's fine, that's good, think so, hope so, guess so, do so",
        "said so, say so, told me so, as well, very well, just as well, go well, going well",
        "for a while, in a while, a little while, for now, right now, too, though, instead, again",
        "anyway, or not, or something, or so, and so on, and all that, isn't it, aren't you",
        "right, okay, ok, am i, since when, from now on, and you, i do, i did, i am not",
        "i was not, yes i am, yes i was, yes i have, yes it is, yes i will, yes i would",
        "no i am not, yes i do, yes we are, yes we have, yes they are, yes we will, i think i am",
        "i know it is, do you want, do you need, you want, you need, i don't know, i do not know",
        "you too, me too, not anymore, i have no idea, dot com, dot org, dot net, dot co dot uk",
        "used to, want to, if you want, come on, come in, yes i want, i don't want, move on",
        "go on, log in, sign in, check in, sign up, give up, feel well, sleep well, work well",
        "works well, all is well, get well, leave me alone, as you want, as you like, if you like",
        "what i need, what i want, all i need, all i want",
    ),
    answers=_set(
        "yes, yeah, yep, yup, ya, no, nope, nah, okay, ok, sure, right, correct, exactly, true",
        "false, stop, stop it, stop that, cancel, continue, go ahead, go on, never mind",
        "nevermind, thanks, thank you, not really, of course, of course not, all right, alright",
        "got it, i see, i don't know, i do not know, i do, i don't, i can't, i won't, i did",
        "i'm not, i am not, i haven't, no thanks, no thank you, yes please, hello, hi, hey",
        "good morning, good evening, good afternoon, good night, goodbye, bye, next, back, repeat",
        "help, quiet, pause, resume, both, neither, maybe, perhaps, never, nothing, always, none",
        "that's all, that's it, that's right, mm-hmm, uh-huh, mhm, fine, great, perfect, good",
        "cool, nice, wow, really, please, absolutely, definitely, probably, probably not, not yet",
        "yes it is, no it isn't, it isn't, we do, hello there, hi there, hey there, shut up",
        "be quiet, enough, hang up, start over, go back, skip, play, done, i'm done, i am done",
        "that was it, why, why not, what, who, where, how, how come, pardon, sorry, excuse me",
        "say that again, come again, as you like, not at all, sounds good, no problem",
    ),
    leads=_set(
        "and, but, so, okay, ok, well, hey, hi, hello, please, then, now, yes, yeah, no, oh",
        "right, alright, great, also, actually, sorry, there, just, um, uh, hmm, er, ah, good",
        "morning, thanks, maybe, wait, sure, perfect, cool",
    ),
    questions=_set(
        "what, where, who, why, how, which, whose, can, could, would, will, do, does, did, is",
        "are, am, was, were, should, shall, may, have, has, isn't, aren't, don't, doesn't, didn't",
        "can't, what's, where's, who's, how's, won't, couldn't, wouldn't, shouldn't, haven't",
        "hasn't",
    ),
    commands=_set(
        "turn, switch, set, play, stop, tell, show, open, close, call, send, give, find, book",
        "keep, cancel, remind, add, create, start, read, make, help, repeat, put, pause, search",
        "explain, write, translate, spell, say, sing, count, list, order, buy, delete, remove",
        "change, check, calculate, describe, let's, wake, schedule, move, look, take, bring, skip",
        "answer, speak, dim, lock, unlock, mute, go, come, leave, reserve, convert, compare",
        "define, name, log",
    ),
    conditions=_set(
        "if, when, while, whenever, although, unless, since, after, before, once, as",
    ),
    digits=_set(
        "zero, oh, one, two, three, four, five, six, seven, eight, nine, double, triple",
    ),
    stranded=_set("about, for, from, at, with, to, like, of, in, on, by, into"),
    supports=_set(
        "you, it, that, this, these, those, they, he, she, i, we, look, looks, sound, feel, taste",
        "come, comes, came, talk, belong, listen, wait, work, live, go, smell, stand, care, made",
        "lights, light, him, her, them, music, open, famous, good, known",
    ),
    particles=_set("on, in, off, over, up, down, out, through, around, by"),
)

GERMAN = Lexicon(
    fillers=_set("äh, ähm, öh, öhm, hm, hmm, mhm, ähh, tja, naja, na ja"),
    dangling=_set(
        "und, aber, oder, weil, dass, wenn, ob, als, denn, sondern, obwohl, damit, sowie, falls",
        "der, die, das, den, dem, des, ein, eine, einen, einem, einer, eines, kein, keine, keinen",
        "mein, meine, meinen, dein, deine, ihr, ihre, sein, seine, unser, unsere, diese, dieser",
        "in, im, an, am, auf, aus, bei, beim, von, vom, zu, zum, zur, für, über, unter, vor, nach",
        "zwischen, durch, gegen, ohne, um, bis, seit, wegen, sehr, auch, ich, wir, also, und dann",
        "mein name ist, ich heiße, ich bin, ich möchte, ich hätte gern, ich hätte gerne, ich will",
        "ich würde, ich würde gern, ich würde gerne, ich brauche, kannst du, können sie",
        "könnten sie, könntest du, gibt es, ich glaube, ich denke, ist, sind, war, hat, haben",
        "wird, zum beispiel, moment, einen moment, warte, warten sie, und zwar, die nummer ist",
    ),
    closings=_set(
        "bitte, danke, danke schön, vielen dank, tschüss, auf wiedersehen, auf wiederhören, oder",
        "das wär's, das ist alles, das war's, nicht wahr, gute nacht, das stimmt, bitte nicht",
        "mach das, was ist das, wer ist das, ich auch, ich weiß nicht, keine ahnung",
        "schalte das licht ein, schalte das licht an, mach das licht an, ja ich bin",
    ),
    answers=_set(
        "ja, nein, nee, doch, okay, ok, genau, stimmt, richtig, falsch, stopp, stop, halt, weiter",
        "danke, bitte, nein danke, ja bitte, ja gerne, gerne, gern, klar, natürlich, hallo",
        "tschüss, guten tag, guten morgen, guten abend, abbrechen, vielleicht, nichts, gut",
        "alles klar, nie, auf wiedersehen, ja genau, weiß ich nicht, ich weiß nicht, hilfe",
        "wiederholen, warum, wie",
    ),
    leads=_set(
        "und, aber, also, okay, ok, ja, nein, hallo, gut, bitte, dann, so, ach, na, ähm, äh",
    ),
    questions=_set(
        "was, wo, wer, wen, wem, wann, warum, wieso, weshalb, wie, welche, welcher, welches",
        "woher, wohin, wieviel, kann, kannst, können, könnten, könntest, ist, sind, hast, haben",
        "hat, gibt, darf, soll, muss, wird, würden, würdest, bist, weißt, wissen",
    ),
    commands=_set(
        "mach, mache, stell, stelle, spiel, spiele, sag, sage, zeig, zeige, öffne, schließ, ruf",
        "schick, gib, such, suche, buche, lies, schreib, erzähl, erzähle, erinnere, hilf, nenn",
        "schalte, schalt, starte, stoppe, erkläre, wiederhole, übersetze, rechne, nimm",
    ),
    conditions=_set("wenn, falls, weil, obwohl, während, bevor, nachdem, sobald, als, da"),
    digits=_set("null, eins, zwei, zwo, drei, vier, fünf, sechs, sieben, acht, neun, doppel"),
    particles=_set("an, aus, ein, auf, zu, ab, vor, um"),
)

FRENCH = Lexicon(
    fillers=_set("euh, heu, hum, hmm, ben, bah, bon ben"),
    dangling=_set(
        "et, mais, ou, parce que, que, qu', qui, si, quand, comme, car, donc, lorsque, puisque",
        "dont, le, la, les, l', un, une, des, du, de, d', au, aux, mon, ma, mes, ton, ta, tes",
        "son, sa, ses, notre, nos, votre, vos, leur, leurs, ce, cette, ces, cet, à, en, dans, sur",
        "sous, pour, par, avec, sans, chez, vers, entre, depuis, pendant, très, plus de, je, j'",
        "il, nous, on, c'est, est, sont, je m'appelle, mon nom est, je voudrais, j'aimerais",
        "je veux, je suis, je pense, je crois, est-ce que, est-ce qu', pouvez-vous, peux-tu",
        "pourriez-vous, il y a, par exemple, et puis, un moment, attendez, attends, une seconde",
        "le numéro est",
    ),
    closings=_set(
        "s'il vous plaît, s'il te plaît, merci, merci beaucoup, au revoir, c'est tout, bonne nuit",
        "n'est-ce pas, d'accord, moi aussi, je ne sais pas, je sais pas, y est-il, à bientôt",
        "à demain, qui est-ce",
    ),
    answers=_set(
        "oui, non, ouais, si, d'accord, ok, okay, bien sûr, exactement, stop, arrête, arrêtez",
        "merci, bonjour, bonsoir, salut, au revoir, non merci, oui merci, peut-être, jamais, rien",
        "voilà, continuez, continue, annuler, annulez, c'est bon, c'est ça, très bien, parfait",
        "pourquoi, je ne sais pas, je sais pas, aidez-moi, allô",
    ),
    leads=_set(
        "et, mais, alors, donc, oui, non, bonjour, ok, d'accord, bon, euh, salut, ah, oh",
    ),
    questions=_set(
        "que, qu'est-ce, qui, où, quand, pourquoi, comment, combien, quel, quelle, quels, quelles",
        "est-ce, peux-tu, pouvez-vous, pourriez-vous, avez-vous, as-tu, y, es-tu, êtes-vous, quoi",
    ),
    commands=_set(
        "allume, allumez, éteins, éteignez, mets, mettez, joue, jouez, dis, dites, montre",
        "montrez, ouvre, ouvrez, ferme, fermez, appelle, appelez, envoie, envoyez, donne, donnez",
        "lis, écris, raconte, racontez, explique, expliquez, cherche, cherchez, aide, répète",
        "répétez, rappelle",
    ),
    conditions=_set("si, quand, lorsque, comme, puisque, pendant, avant, après, dès"),
    digits=_set("zéro, un, deux, trois, quatre, cinq, six, sept, huit, neuf, double"),
)

SPANISH = Lexicon(
    fillers=_set("eh, em, este, mmm, pues, bueno pues, hmm, ehm"),
    dangling=_set(
        "y, e, pero, o, u, porque, que, si, cuando, como, aunque, mientras, sino, ni, donde",
        "así que, el, la, los, las, un, una, unos, unas, mi, mis, tu, tus, su, sus, nuestro",
        "nuestra, este, esta, estos, ese, esa, a, al, de, del, en, con, sin, por, para, sobre",
        "entre, desde, hasta, hacia, según, muy, más de, yo, me llamo, mi nombre es, quiero",
        "quisiera, me gustaría, necesito, puedo, puedes, puede, podría, podrías, es, son, está",
        "están, estoy, soy, hay, creo que, por ejemplo, y luego, un momento, espera, espere",
        "el número es",
    ),
    closings=_set(
        "por favor, gracias, muchas gracias, adiós, hasta luego, hasta mañana, eso es todo",
        "nada más, de acuerdo, verdad, yo también, no sé, buenas noches, qué hora es, cómo está",
        "dónde está, qué es, quién es, cómo es, de nada, cuánto es, qué hay",
    ),
    answers=_set(
        "sí, si, no, vale, ok, okay, claro, exacto, correcto, para, alto, basta, cancelar",
        "cancela, gracias, hola, adiós, buenos días, buenas tardes, buenas noches, no gracias",
        "sí por favor, quizás, tal vez, nunca, nada, siguiente, continúa, de acuerdo",
        "por supuesto, no sé, perfecto, muy bien, ayuda, por qué, stop",
    ),
    leads=_set("y, pero, entonces, sí, no, hola, ok, vale, bueno, pues, oye, ah, oh, eh"),
    questions=_set(
        "qué, quién, quiénes, dónde, cuándo, cómo, cuál, cuáles, cuánto, cuánta, cuántos, cuántas",
        "puedes, puede, podrías, podría, tienes, tiene, hay, adónde",
    ),
    commands=_set(
        "enciende, apaga, pon, ponme, dime, muéstrame, abre, cierra, llama, envía, manda, dame",
        "busca, reserva, lee, escribe, cuéntame, explica, explícame, recuérdame, ayúdame, repite",
        "traduce",
    ),
    conditions=_set("si, cuando, aunque, mientras, como, después, antes"),
    digits=_set("cero, uno, dos, tres, cuatro, cinco, seis, siete, ocho, nueve, doble"),
)

ITALIAN = Lexicon(
    fillers=_set("ehm, eh, mmm, uhm, cioè, boh, hmm, allora"),
    dangling=_set(
        "e, ed, ma, o, oppure, perché, che, se, quando, come, anche, mentre, quindi, però, poiché",
        "il, lo, la, i, gli, le, l', un, uno, una, un', di, d', a, ad, da, in, con, su, per, tra",
        "fra, del, dello, della, dei, degli, delle, dell', al, allo, alla, ai, alle, all', dal",
        "dalla, dall', nel, nella, nell', sul, sulla, sull', mio, mia, tuo, tua, suo, sua, molto",
        "io, mi chiamo, il mio nome è, vorrei, voglio, ho bisogno, posso, puoi, può, potresti",
        "potrebbe, è, sono, c'è, ci sono, credo che, penso che, per esempio, ad esempio, e poi",
        "un momento, un attimo, aspetta, aspetti, il numero è, mi piacerebbe",
    ),
    closings=_set(
        "per favore, per piacere, grazie, grazie mille, arrivederci, a domani, a presto, è tutto",
        "buona notte, buonanotte, anch'io, non lo so, non so, d'accordo, vero, dov'è, chi è",
        "cos'è, che cos'è, com'è, quant'è, qual è, basta così",
    ),
    answers=_set(
        "sì, si, no, ok, okay, va bene, certo, esatto, giusto, basta, fermo, ferma, stop, annulla",
        "grazie, ciao, buongiorno, buonasera, arrivederci, no grazie, sì grazie, forse, mai",
        "niente, avanti, continua, d'accordo, perfetto, non lo so, non so, aiuto, perché, pronto",
        "bene",
    ),
    leads=_set(
        "e, ma, allora, sì, no, ciao, ok, va, bene, senti, scusa, scusi, ah, oh, eh, dunque",
    ),
    questions=_set(
        "cosa, che, chi, dove, dov'è, quando, come, com'è, quale, quali, qual, quanto, quanta",
        "quanti, quante, puoi, può, potresti, potrebbe, hai, ha, c'è, cos'è, quant'è",
    ),
    commands=_set(
        "accendi, spegni, metti, suona, dimmi, mostrami, apri, chiudi, chiama, manda, dammi",
        "cerca, prenota, leggi, scrivi, raccontami, spiega, spiegami, ricordami, aiutami, ripeti",
        "traduci",
    ),
    conditions=_set("se, quando, mentre, siccome, dopo, prima, appena, poiché"),
    digits=_set("zero, uno, due, tre, quattro, cinque, sei, sette, otto, nove, doppio"),
)

LEXICONS = {"en": ENGLISH, "de": GERMAN, "fr": FRENCH, "es": SPANISH, "it": ITALIAN}
