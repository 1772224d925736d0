<?php

// Runs vectors.json against verify.php; exit code 1 if a verdict is wrong.
require __DIR__ . '/verify.php';

$vectors = json_decode(file_get_contents($argv[1] ?? __DIR__ . '/../vectors.json'), true, 64, JSON_THROW_ON_ERROR);
$wrong = 0;
foreach ($vectors['cases'] as $vector) {
    $verdict = 'accepted';
    try {
        verified_callback(
            $vector['authorization'], base64_decode($vector['body_base64']), $vectors['pems'], $vector['algorithm'],
            $vectors['operator_id'], $vector['now']
        );
    } catch (Throwable $fault) {
        $verdict = "refused: {$fault->getMessage()}";
    }
    if ($vector['accept'] !== ($verdict === 'accepted')) {
        $wrong++;
        fwrite(STDERR, "{$vector['name']}: $verdict\n");
    }
}
$count = count($vectors['cases']);
echo $count - $wrong, " of $count cases as expected\n";
exit($wrong ? 1 : 0);
